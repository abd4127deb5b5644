package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// A stage is over for each when it is for all: they tell that they are through, and
// wait until it ends.
type stage struct{ told, tell, wait, end *os.File }

func newStage() (*stage, error) {
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wait, end, err := os.Pipe()
	return &stage{told, tell, wait, end}, err
}

// all waits for all containers, and ends the stage.
func (s *stage) all() error {
	s.tell.Close() // one that fails tells nothing
	if _, err := io.ReadFull(s.told, make([]byte, containers)); err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	return s.end.Close()
}

// passed is of a container: its ends are behind standard error.
func passed() error {
	tell, wait := os.NewFile(3, "tell"), os.NewFile(4, "wait")
	_, err := tell.Write([]byte{1})
	tell.Close()
	wait.Read(make([]byte, 1)) // ends with the pipe
	return err
}

// hog computes, in nothing but user mode.
func hog() {
	runtime.LockOSThread() // a thread's name is that of what runs
	_ = os.WriteFile("/proc/thread-self/comm", []byte("hog"), 0)
	for begin := time.Now(); time.Since(begin) < alone; {
	}
}
