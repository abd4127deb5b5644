// Package policytest runs *_test.star files: functions test_*(t) that say of
// frames whether a policy drops or forwards them.
//
//	def test_stranger_is_not_resolved(t):
//	    p = tenant(TENANTS["a"])
//	    t.drops(p, arp(dst_ip = "10.0.0.17"), line = "dst_ip in subnet")
//	    t.forwards(p, arp(dst_ip = "10.0.0.3"))
//
// No root, no network and no machine is needed: a policy is compiled for the
// card that is to send the frame, the program's bytes are decoded as a machine
// decodes them, and the frame is parsed and judged as the switch does it.
//
// The card is that of the container, if the first argument is a container;
// else that of t.nic(); else the default card, 02:00:00:00:00:02 with 10.0.0.2
// and fd00::2. Builders fill in its addresses (see starlark/frames).
//
// Test functions run in parallel: what a file makes at its top is frozen. A
// failed assertion is recorded and the test goes on.
package policytest
