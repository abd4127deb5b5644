// Package kernel builds, keeps and judges the kernels of User-Mode Linux
// machines.
//
// [Build] makes one from Debian's kernel source package with the configuration
// and the patches that are part of this program, once: the result lies in a cache
// under a key made of source version, configuration and patches, beside a manifest
// that says what it was made of. xstate.patch and idmap.patch are needed; by the
// others, which other versions go without, a machine starts in 2/3 of the
// processor time, because its programs are stopped less often and for less. [Find] is
// the newest such kernel, and costs no more than reading its manifest.
//
// [Inspect] reads any kernel file, ours or not, without running it. Whether it
// runs on this host only a boot can say: package uml has that.
//
// This is the one package of its tree that runs other programs (make, tar,
// patch, strip): a kernel cannot be compiled otherwise. Nothing here runs when a
// machine is started.
package kernel
