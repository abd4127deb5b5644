// Package layout finds out where one guest kernel keeps what introspection
// reads: the offsets of struct fields, from the BTF in the kernel's image, and
// the addresses of symbols, from its symbol table, its export table, or the
// text of System.map.
//
// No offset stands in the source. They differ between versions and between
// configurations of one version, and a wrong one reads another field without
// any error: the wrong container would be charged. A field that the BTF does not
// have, or has with another size, is therefore an [Error], and not a guess.
//
//	l, err := layout.Read(image)              // *os.File of vmlinux or a UML kernel
//	syms, err := layout.Symbols(image, "init_net", "cpu_tasks")
package layout
