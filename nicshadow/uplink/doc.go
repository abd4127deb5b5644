// Package uplink makes the port by which a pod's switch reaches the host: a
// TAP device in the host's network namespace, with the addresses that the
// containers use as gateways, and, if asked, masquerade for what leaves the
// host.
//
// # What it changes on the host, and when that ends
//
//   - The interface: gone when the uplink is closed or its process ends.
//   - With Masquerade, an nftables table of its own, named after the pod and
//     unlike any other: removed by Close; what a killed supervisor left,
//     [RemoveTable] removes.
//   - With Masquerade, net.ipv4.ip_forward is set to 1 if it is not. It is not
//     set back: by then others may rely on it. IPv6 forwarding is never touched,
//     because it makes a host ignore router advertisements and so may take its
//     own network away; where IPv6 addresses are to be masqueraded and it is off,
//     that is an error which says so.
//
// The host's own firewall is in force besides: a forward chain that drops
// needs a rule for the interface.
package uplink
