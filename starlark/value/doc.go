// Package value is the vocabulary of a .star file that Starlark lacks: IP
// addresses, networks, MAC addresses and port sets, the constants that name
// protocols and opcodes, and the parsers of unit strings.
//
//	GATEWAY = ip("10.0.0.62")
//	PEERS   = net("10.0.0.0/28")
//	WEB     = ports("80,443,8000-8999")
//
//	GATEWAY in PEERS          # False
//	ip("10.0.0.3") in PEERS   # True
//	443 in WEB                # True
//
// All values are immutable, hashable and comparable within their type.
//
// # Never a silent False
//
// In plain Starlark `ip("10.0.0.1") == "10.0.0.1"` is False: values of two
// types are unequal and neither is asked. A policy that compares so drops, or
// passes, everything. [Compare] and [Contains] are `==` and `in` for our types:
// they make that comparison an error that says what to write. starlark/policy
// puts them in the place of the operators in every file it loads, so the rule
// holds in helpers and at the top of a module as well as in predicates.
//
// The limit: comparisons that Starlark's own library makes inside Go are not
// ours. `d.get("10.0.0.1")` on a dict of addresses is None, and
// `l.index("10.0.0.1")` says that the value is not in the list. Ordered
// comparisons (sorted, min, max) of an ip and a string are errors everywhere.
package value
