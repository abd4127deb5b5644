// Package usernet is the way out of a pod's switch without root: a network stack
// in a process of the user's, gVisor's, that ends the containers' connections and
// makes them again with the user's own sockets. To the containers it is their
// gateway; to the world they are the user.
//
//	TCP, UDP     a socket of the host for each connection, flow
//	ICMP echo    a ping socket of the host, where the user may have them
//	             (net.ipv4.ping_group_range); else nobody answers
//	port 53 of a gateway's address
//	             the host's own resolver
//
// It runs as a program of its own, cmd/seki-net, at the other end of a socket
// pair: the stack is large, what the containers send into it is what their
// policies let through, and the supervisor and its start shall have nothing of it.
//
// # What containers do not reach
//
// The host's loopback, its link-local network (where clouds have their metadata),
// multicast, and all other ports of the gateway's addresses: those are reset or
// not answered. What else the user reaches, a container reaches that its policy
// lets: the host's other addresses among it.
//
// # What it says on the switch
//
// It answers ARP and neighbour solicitations for the gateway's addresses and for
// no others, though to the stack every address is its own.
package usernet
