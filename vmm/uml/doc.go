// Package uml starts machines whose kernel is User-Mode Linux: a Linux kernel
// that is an ordinary process of the host, needs neither root nor /dev/kvm, and
// runs in a jail (package jail).
//
//	m, err := uml.Start(ctx, &uml.Config{
//		Kernel: k.Path, LPJ: k.LPJ, Memory: 128 << 20, InitRD: f,
//		Devices: []uml.Device{{ID: 1}, {ID: 19}},
//	})
//	card, err := m.Accept(0) // a vhost-user connection: serve it, the boot waits
//	...
//	err = m.Wait()
//
// The kernel is process 1 of its namespace; its death ends all of the machine,
// and so does that of this process. A guest's system calls never reach the host:
// UML runs guest code under ptrace and cancels each of them (SYSEMU). Newer
// kernels can do without ptrace, by seccomp and a stub that shares memory with
// the guest's own code; by their own documentation that is no boundary. It is
// never asked for, refused on the command line, and the jail's filter kills a
// kernel that tries.
package uml
