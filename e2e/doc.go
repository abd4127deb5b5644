// Package e2e holds the attack tests: frames that get past ordinary bridge
// filters, and the honest ones that strict filters break, sent through real
// network namespaces.
//
// Each variant is sent twice. First over an unprotected Linux bridge, the
// control: it records what the frame really does to its victim, so that the
// suite can fail. Then through the product's own data path, TAP to switch to
// TAP, where it must do nothing. What happened is observed, never inferred:
// neighbour tables are read through netlink, arrivals by a packet socket in
// the victim's namespace.
//
// The machine tests (machine_*_test.go) are the same with the command as users
// have it, in pods with a kernel of their own: attacks from inside a container,
// from root of the guest and from who owns the guest, volumes, death and soak.
// What runs inside is testdata/inside.
//
// The attribution tests boot a guest whose containers share one card, and hold
// whom each of their frames is traced to against who sent it: on User-Mode Linux,
// and on KVM, where e2e/nested runs them (make test-kvm).
//
// The tests need root, network namespaces and a TUN device. They send nothing
// outside namespaces that they made themselves, and those die with the test
// process.
//
// The package also writes the captures of testdata/pcap, from the same frames:
//
//	go test ./e2e -run TestCaptures -update
package e2e
