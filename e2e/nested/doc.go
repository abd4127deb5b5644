// Package nested boots a Linux that has a /dev/kvm which can run Linux, where
// the machine at hand has none: Debian's cloud kernel in QEMU, whose TCG plays
// a CPU with SVM. What runs in there as process, our VMM above all, boots
// another Linux below itself.
//
//	QEMU (no acceleration, no network)
//	└─ L1: Debian's kernel, an initial file system of what the test brings
//	   └─ command: a test binary, seki …
//	      └─ L2: what it runs on /dev/kvm
//
//	kernel := nested.Require(t, "6.1")
//	m, err := nested.Boot(ctx, nested.Config{Kernel: kernel, Modules: []string{"kvm-amd"}, Files: files})
//	status, err := m.Run(ctx, out, "/tests/kvm.test", "-test.v")
//	err = m.Close()
//
// A boot takes 5 to 10 s, a command what it takes: everything is some twenty
// times slower than on the machine itself, an exit of L2 to its VMM takes 0.3 ms.
// So a boot is shared by all commands that can share it, and each of them says
// what it found out in few words. A machine has one processor: tests are parallel.
//
// The kernels are Debian's own packages, fetched by scripts/guest-kernels, which
// apt checks, and unpacked without being installed.
package nested
