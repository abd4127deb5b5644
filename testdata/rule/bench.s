; The policy of the benchmarks: the container is 10.0.0.5 at 02:00:00:00:00:05.
; ARP speaks for the own address, to the own subnet but not to its gateway.
; IPv4 comes from the own address, and goes to 10.0.0.0/8, to TCP 80 and 443
; or to UDP 53. All else drops.

.entry arp
	row	eth.src=02:00:00:00:00:05, arp.sha=02:00:00:00:00:05, arp.spa=10.0.0.5 else spoof
	mask	arp.tpa, 10.0.0.0/24 else stranger
	ne	arp.tpa, 10.0.0.1 else gateway @ bench.star:6:37
	ret	forward, predicate "allow_arp" (bench.star:6:12)
spoof:
	ret	drop, guard "arp"
stranger:
	ret	drop, predicate "allow_arp" (bench.star:6:12)
gateway:
	ret	drop, predicate "allow_arp" (bench.star:6:37)

.entry ipv4-tcp
	eq	ip4.src, 10.0.0.5 else forged
	mask	ip4.dst, 10.0.0.0/8 else tcp
	ret	forward, predicate "allow_tcp" (bench.star:9:12)
tcp:
	nec	port.dst, 80 else web
	eq	port.dst, 443 else closed
web:
	ret	forward, predicate "allow_tcp" (bench.star:9:40)

.entry ipv4-udp ipv4-dhcp
	eq	ip4.src, 10.0.0.5 else forged
	mask	ip4.dst, 10.0.0.0/8 else udp
	ret	forward, predicate "allow_udp" (bench.star:12:12)
udp:
	eq	port.dst, 53 else closed
	ret	forward, predicate "allow_udp" (bench.star:12:40)

.entry ipv4-icmp ipv4-other ipv4-fragment
	eq	ip4.src, 10.0.0.5 else forged
	mask	ip4.dst, 10.0.0.0/8 else closed
	ret	forward, predicate "allow_ipv4" (bench.star:15:12)

closed:
	ret	drop, predicate "allow_ipv4" (bench.star:15:12)
forged:
	ret	drop, guard "ip"

.entry other ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
	ret	drop, unspoken "ethernet"
