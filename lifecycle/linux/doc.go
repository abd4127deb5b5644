// Package linux makes containers with the kernel that this program runs on:
// namespaces, mounts, cgroups, capabilities, system call filter. It is driven by
// the OCI specification inside a [bundle.Spec] and knows nothing of pods,
// networks or policies.
//
// A container's first process is a copy of this one, without its heap, made by
// clone3, that carries out a list of system calls, a script, and ends it with
// execve. The parent writes the list beforehand, in ordinary Go: what is to be
// done is decided, and every file of the host opened, before the container
// exists. The child decides nothing and allocates nothing, so it needs no Go
// runtime, and no second start of one (2 ms, and the package initialisation of
// everything that is linked in). Nothing of ours is executed inside, no message
// is parsed there.
//
//	cfg := linux.Config{ID: "web/a1", Spec: spec, IDBase: 100000}
//	c, err := linux.Create(ctx, cfg) // namespaces exist; attach the network to c.NetNS()
//	err = c.Prepare(ctx)             // its root file system is in place
//	err = c.Start(ctx)               // the workload runs
//	status, err := c.Wait()
//	err = c.Destroy()                // whatever came before; nothing is left behind
//
// The order within the child, and why:
//
//	prctl, close_range    a copy of the supervisor is no one's to trace, and holds no descriptor too many
//	enter the cgroup      by itself, which is fifty times faster than being moved
//	(wait)                id maps and mount attributes are the parent's to set
//	become root           of the user namespace, all capabilities there, none on the host
//	make file systems     proc and sysfs need the host's in sight
//	pivot_root            before all other mounts: no path leads to the host from here on
//	attach mounts         each destination opened below the root, each source a descriptor
//	(wait)                OCI's create ends here
//	close descriptors     before the working directory is looked up (CVE-2024-21626)
//	user, capabilities    bounding set first, for it needs CAP_SETPCAP
//	system call filter    last, for it would forbid all of the above
//	execve                closes the control socket: the parent sees that it worked
//
// The supervisor's death is the container's: PID 1 has it as parent-death
// signal, sent when the thread dies that cloned it, which is one that never
// does by itself. Whatever survives nevertheless, [Reap] removes.
//
// unsafe is confined to this package, here for the addresses that scripts hand
// to the kernel.
package linux
