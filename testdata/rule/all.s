; Every operation once, and operands of every form.

.file "all.star"
.file "a path.star"
.table exact64 { 80 443 02:00:00:00:00:05 }
.table prefix32 { 10.0.0.0/8 192.168.0.0/16 0.0.0.0/32 }
.table exact128 { 2001:db8::1 ::ffff:10.0.0.1 }
.table prefix128 { fe80::/10 2001:db8::/32 }

.limit "allow_tcp 100/s" 10000000 20
.limit "all; of \"them\"" 1 1

.entry ipv4-tcp ipv4-udp ipv4-dhcp
	eq	ip4.src, 10.0.0.5 else drop @ all.star:1:1
	ne	ip4.dst, 255.255.255.255 else drop @ all.star:2:10
	lt	ip.ttl, 65 else drop
	le	ip.dscp, 0x3f else drop
	gt	port.src, 1023 else drop
	ge	port.dst, 1 else drop
	range	port.dst, 80..443 else drop @ #1:3:1
	eqc	eth.src, 02:00:00:00:00:05 else drop
	nec	eth.dst, ff:ff:ff:ff:ff:ff else drop
	mask	ip4.src, 10.0.0.0/8 else drop
	nmask	ip4.dst, 10.0.0.1&255.0.0.255 else drop
	mask	ip.ttl, 0x40&0xf0 else drop
	eqf	ip4.src, ip4.dst else peers
	nef	eth.src, eth.dst else drop
peers:
	row	eth.src=02:00:00:00:00:05, ip4.src=10.0.0.0/24, vlan.tags=0, ip.proto=0x2&0x3 else drop
	in	ip4.dst, t1 else tables
	notin	port.dst, t0 else drop
tables:
	ldf	r0, ip.ttl
	ldi	r1, -5
	ldc	r2, 0x100000000
	mov	r3, r2
	add	r3, r0
	sub	r3, r1
	mul	r3, r3
	div	r3, r1
	mod	r3, r2
	and	r3, r0
	or	r3, r1
	xor	r3, r2
	ldi	r4, 3
	shl	r3, r4
	shr	r3, r4
	neg	r3
	not	r3
	req	r3, r0 else drop
	rne	r3, r1 else drop
	rlt	r3, r2 else drop
	rle	r3, r2 else drop
	rin	r3, t0 else drop
	rate	l1 else drop @ all.star:8:1
	flow else drop
	lease	ip4.src else watch
	ret	forward, predicate "allow_tcp" (all.star:9:1) @ all.star:9:1

.entry ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
	eqc	ip6.src, 2001:db8::5 else drop
	mask	ip6.dst, 2001:db8::/32 else drop
	in	ip6.dst, t2 else six
	notin	ip6.src, t3 else drop
six:
	jmp	fragments

watch:
	ret	audit, predicate "allow_tcp" (all.star:9:2)

.entry arp other
	answered else fragments
	ret	drop, unspoken "ethernet"

.entry ipv4-icmp ipv4-other ipv4-fragment
fragments:
	ret	drop, fragment "port.dst; \"quoted\""
drop:
	ret	drop, guard "ip"

.ingress arp ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment
	rate	l0 else in
.ingress other ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
in:
	ret	drop, unspoken "ip"
