package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"sekimori/vmm/hypercall"
	"sekimori/vmm/hypercall/doorbell"
)

// guises are those in which somebody might be taken for the agent, process 1.
var guises = []struct {
	name string
	attr *syscall.SysProcAttr
}{
	{"child", nil},
	{"session", &syscall.SysProcAttr{Setsid: true}},
	{"process 1 of its own", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}},
}

// ring makes hypercalls by the doorbell of machine kvm, in each guise: words as good
// as the agent's, which goes on in its conversation.
func ring(args []string) error {
	if len(args) > 0 {
		rings(args[0])
		return nil
	}
	rings("itself")
	for _, g := range guises {
		cmd := exec.Command("/proc/self/exe", "ring", g.name)
		cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = g.attr, os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			fmt.Printf("%s: %v\n", g.name, err)
		}
	}
	return nil
}

func rings(guise string) {
	runtime.LockOSThread()
	_ = os.WriteFile("/proc/thread-self/comm", []byte("seki"), 0)
	line, err := doorbell.Open()
	if err != nil {
		fmt.Printf("%s: %v\n", guise, err)
		return
	}
	defer line.Close()
	try(guise+" hello", func() error { return hypercall.NewClient(line.Call).Hello([hypercall.SecretSize]byte{}) })
	again := hypercall.NewClient(ahead(line.Call))
	for sender := uint32(1); sender <= 3; sender++ {
		try(fmt.Sprint(guise, " mode ", sender), func() error { return again.SetMode(sender, hypercall.ModeAudit) })
		try(fmt.Sprint(guise, " swap ", sender), func() error { return again.Swap(sender, [hypercall.HashSize]byte{}, hypercall.ModeAudit) })
		try(fmt.Sprint(guise, " stats ", sender), func() error { _, err := again.Stats(sender); return err })
		try(fmt.Sprint(guise, " unregister ", sender), func() error { return again.Unregister(sender) })
	}
	try(guise+" register", func() error { return again.Register(hypercall.Registration{Sender: 4, Name: "stranger"}) })
}
