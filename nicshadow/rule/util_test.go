package rule_test

import "net/netip"

// addr is the bytes of an address.
func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
