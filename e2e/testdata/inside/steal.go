package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/hypercall"
)

// steal takes the agent's own connection for hypercalls, and has the host put a
// program in force for a sender: the sender's number, the program.
func steal(args []string) error {
	sender, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	program, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	conn, err := agentConnection(1)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // another's never answers
		return err
	}
	calls := hypercall.NewClient(ahead(hypercall.Stream(conn)))
	load := func(sender uint32, m hypercall.Mode) error {
		hash, err := calls.Load(sender, program)
		if err != nil {
			return err
		}
		return calls.Swap(sender, hash, m)
	}
	try("stranger", func() error { return calls.Register(hypercall.Registration{Sender: 99, Name: "stranger"}) })
	try("other name", func() error { return calls.Register(hypercall.Registration{Sender: uint32(sender), Name: "alice"}) })
	try("load for a stranger", func() error { return load(99, hypercall.ModeAudit) })
	try("load", func() error { return load(uint32(sender), hypercall.ModeAudit) })
	return nil
}

// agentConnection is the agent's connection of that number, in the order in
// which it called: the ports are given out one after the other.
func agentConnection(number int) (*os.File, error) {
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	type socket struct {
		port uint32
		fd   int
	}
	var all []socket
	for fd := range 256 {
		own, err := unix.PidfdGetfd(pidfd, fd, 0)
		if errors.Is(err, unix.EBADF) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("pidfd_getfd", err)
		}
		if a, err := unix.Getsockname(own); err == nil {
			if vm, ok := a.(*unix.SockaddrVM); ok {
				all = append(all, socket{vm.Port, own})
				continue
			}
		}
		unix.Close(own)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].port < all[j].port })
	if len(all) <= number {
		return nil, fmt.Errorf("the agent has %d connections", len(all))
	}
	return os.NewFile(uintptr(all[number].fd), "hypercalls"), nil
}

// ahead goes on in a conversation that another has begun: in its version, with
// numbers beyond those it has come to.
func ahead(t hypercall.Transport) hypercall.Transport {
	const far = 1 << 40
	renumber := func(b []byte, version uint16, by uint64) {
		binary.LittleEndian.PutUint16(b[4:], version)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])+by)
	}
	return func(req []byte) ([]byte, error) {
		renumber(req, hypercall.Version, far)
		answer, err := t(req)
		if err == nil {
			renumber(answer, 0, ^uint64(far)+1)
		}
		return answer, err
	}
}
