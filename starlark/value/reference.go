package value

import (
	"fmt"
	"slices"

	"go.starlark.net/starlark"
)

// A Doc documents one name of this package.
type Doc struct{ Name, Signature, Doc string }

// signatures are the functions; the rest of [Builtins] are numbers.
var signatures = []Doc{
	{"ip", "ip(x)", `An address, IPv4 or IPv6, of a string such as "10.0.0.1" or "fd00::1". Comparing it with a string is an error that says to write ip("...").`},
	{"mac", "mac(x)", `An Ethernet address, of a string such as "02:00:00:00:00:01".`},
	{"net", "net(x, bits)", `A network, of a string such as "10.0.0.0/24" or "fd00::/64", or of an ip and the length of its prefix. ip("10.0.0.3") in net("10.0.0.0/24") is True.`},
	{"ports", "ports(x, ...)", `A set of ports, of numbers, strings such as "80,443,8000-8999" and other sets. 8080 in ports("8000-8999") is True.`},
}

// Reference documents the names of [Builtins], sorted: functions first, then
// constants and groups of them.
func Reference() (functions, constants []Doc) {
	functions = slices.Clone(signatures)
	for name, v := range Builtins() {
		if slices.ContainsFunc(functions, func(d Doc) bool { return d.Name == name }) {
			continue
		}
		if n, ok := v.(*Names); ok {
			for _, key := range n.AttrNames() {
				if c, err := n.Attr(key); err == nil {
					constants = append(constants, Doc{Name: name + "." + key, Doc: number(c)})
				}
			}
			continue
		}
		constants = append(constants, Doc{Name: name, Doc: number(v)})
	}
	slices.SortFunc(constants, func(a, b Doc) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return functions, constants
}

// number is a constant as one looks it up: EtherTypes in hex.
func number(v starlark.Value) string {
	if i, ok := v.(starlark.Int); ok {
		if n, ok := i.Int64(); ok && n >= 0x600 {
			return fmt.Sprintf("%#04x", n)
		}
	}
	return v.String()
}
