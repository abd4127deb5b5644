// Package frames makes Ethernet frames for tests of policies: from fields, by
// the builders arp(), ipv4(), tcp() and their kin, and from recordings, by
// pcap().
//
// A builder's frame is a recipe. What the test leaves out is filled in when the
// frame is judged, from the card that is to have sent it: its MAC address, its
// addresses. So one frame serves for several senders, and tests name only what
// they are about. Recorded frames and raw() are bytes and stay as they are.
//
// Frames are written by gopacket's serializers, not by code of ours, so that a
// mistake in the strict parser does not repeat itself in the tests of it.
package frames
