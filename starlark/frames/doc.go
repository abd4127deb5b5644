// Package frames makes Ethernet frames for tests of policies: from fields, by
// the builders arp(), ipv4(), tcp() and their kin, and from recordings, by
// pcap().
//
// A builder's frame is a recipe. What the test leaves out is filled in when the
// frame is judged, from the card that is to have sent it: its MAC address, its
// addresses. So one frame serves for several senders, and tests name only what
// they are about. Recorded frames and raw() are bytes and stay as they are.
//
// The tests of this package hold its serializers to gopacket's, byte for byte,
// so that a mistake in the strict parser finds no counterpart here.
package frames
