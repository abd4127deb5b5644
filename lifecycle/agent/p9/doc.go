// Package p9 serves directories of the host to a guest that is not trusted, in
// 9P2000.L: the protocol of the Linux kernel's own client, so that the guest
// needs nothing but `mount -t 9p -o trans=fd,version=9p2000.L`.
//
// The client is root in the guest and may send any bytes. What holds against
// it:
//
//   - Nothing outside the exported directory is reached. A fid is a descriptor
//     opened with O_PATH, and a walk opens one name below it with openat2 and
//     RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS. There is no
//     path that could be resolved again later, so there is nothing to race
//     with; symbolic links are the guest's to resolve, here they are only read;
//     ".." is refused, the Linux client never sends it.
//   - Nothing but regular files and directories is ever opened, and what kind a
//     file is is asked of the descriptor, not of the name. FIFOs, sockets and
//     device nodes are shown, and live in the guest's kernel only. No device
//     node is ever made.
//   - Messages are decoded strictly and are bounded, and so are the fids, the
//     requests at work and the connections: a client can stall itself, not
//     fill the host's memory.
//
// What a fid names stays within the fid's reach when somebody on the host moves
// it out of the directory, as with a process that has its working directory
// there; a guest cannot move anything out.
//
// The server acts with the rights of its process, and the guest's kernel checks
// the permissions of its own users. Programs on the host that follow symbolic
// links in a directory a guest can write meet the guest's links: that is theirs
// to guard, as in every shared directory. The guest should mount with nodev: an
// exported device node is a node of the guest's kernel.
//
// The guest mounts with a descriptor of the connection, and says by name which
// export it wants:
//
//	mount("seki", dir, "9p", MS_NODEV|MS_NOSUID,
//		"trans=fd,rfdno=N,wfdno=N,version=9p2000.L,aname=NAME,msize=524288,cache=loose")
//
// cache=loose is for what nobody else changes, a root file system, and
// cache=mmap for volumes. A read of 64 MiB on vsock, User-Mode Linux, a busy
// machine: 132 MB/s with messages of 128 KiB, 168 with 512 (TestGuestFiles in
// package e2e).
//
// A file's way: [Open] makes an [Export] of a directory and its [Options], a
// [Server] holds the exports by name (the mount option aname), and
// [Server.ServeConn] speaks with one client.
package p9
