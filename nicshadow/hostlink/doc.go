// Package hostlink makes a TCP listener of the host that one guest card reaches
// and nobody else: for the agent of a machine that is to speak TCP, where vsock
// is not wanted.
//
// The listener is in a network namespace of its own, that of a process which has
// ended, and lives as long as its sockets. In it are two ends of a cable (veth):
// one has the host's address, on the other is a packet socket, by which frames of
// the guest's card come and go. No port of the host's own addresses is taken, no
// other user of the host can connect, no route leads out, and no root is needed:
// the namespace belongs to a user namespace that is made with it.
//
// Of what the guest sends, only its card's own ARP and its TCP to the listener's
// port are written to the cable ([Link.Transmit]): the kernel's network stack is
// large, and the guest is not trusted.
package hostlink
