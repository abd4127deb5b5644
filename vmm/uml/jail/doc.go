// Package jail runs a program that is not to be trusted, the kernel of a
// User-Mode Linux machine, with nothing of the host in reach.
//
// Between this process and the program stands a stage: this same binary, executed
// anew in new namespaces under another name, which the package's init function
// recognises before anything else runs. (Namespaces and ids are set up by the
// clone; what comes after needs more than the few system calls that a copy of
// a multi-threaded process may make, and 4 ms are affordable once a pod.) The
// stage builds the jail around itself and becomes the program:
//
//	clone                 new user, pid, mount, net, ipc, uts and cgroup namespaces; one id
//	enter the cgroup      where there is one
//	root file system      an empty tmpfs: /dev/null, /dev/random, /run; the host's is detached
//	listen                on the sockets of devices, in /run: the host has no path to them
//	limits                no core, one number of descriptors, a file size
//	capabilities          none, bounding set empty, no_new_privs
//	Landlock              /run and the two devices; no TCP, no abstract socket, no signal out
//	system call filter    kills the process for what is not on the list
//	execveat              of a descriptor, which the filter allows for this one alone
//
// The parent's death is the program's, and the program's that of all its
// children: it is process 1 of its namespace.
package jail
