// Package frame is the strict parser: it turns an Ethernet frame into a fixed
// [Key] of fields, or into the named [Reason] why it must drop.
//
// Strict means that a frame has one reading. Whatever two receivers might read
// differently, or a filter and the receiver behind it, is refused: stacks of
// VLAN tags (CVE-2021-27853 and its kin), LLC and SNAP encapsulation, ARP for
// anything but Ethernet and IPv4, fragments that overlap the header they
// follow (RFC 1858, RFC 3128), header chains cut by fragmentation (RFC 7112),
// fragmented neighbour discovery (RFC 6980), bytes behind the end of a packet.
// What the parser accepts it accepts wholly; it never repairs.
//
// The parser judges structure, not sense: a forged sender address is well
// formed, and it is the policy that drops it.
//
//	var k frame.Key
//	if r := frame.Parse(b, &k); r != frame.OK {
//		drop(r)
//	}
//	if k.Class() == frame.ClassARP { use(k.Uint(frame.ARPSenderIP)) }
//
// Parse neither allocates nor keeps b. A Key is a value: copy it freely.
package frame
