// Package kernel builds, keeps and judges the kernels of User-Mode Linux
// machines.
//
// [Build] makes one from Debian's kernel source package with the configuration
// and the patch that are part of this program, once: the result lies in a cache
// under a key made of source version, configuration and patch, beside a manifest
// that says what it was made of. [Find] is the newest such kernel, and costs no
// more than reading its manifest.
//
// [Inspect] reads any kernel file, ours or not, without running it. Whether it
// runs on this host only a boot can say: package uml has that.
//
// This is the one package of its tree that runs other programs (make, tar,
// patch, strip): a kernel cannot be compiled otherwise. Nothing here runs when a
// machine is started.
package kernel
