package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// write writes files below a directory, of several owners, and prints what
// becomes of each.
func write(dirs []string) error {
	for _, dir := range dirs {
		try(dir+"/new", func() error { return os.WriteFile(dir+"/new", []byte("written inside\n"), 0o640) })
		try(dir+"/owned", func() error {
			if err := os.WriteFile(dir+"/owned", nil, 0o600); err != nil {
				return err
			}
			return os.Chown(dir+"/owned", 1000, 1001)
		})
		try(dir+"/setuid", func() error {
			if err := os.WriteFile(dir+"/setuid", []byte("#!/bin/sh\n"), 0o755); err != nil {
				return err
			}
			return unix.Chmod(dir+"/setuid", 0o6755)
		})
		try(dir+"/device", func() error {
			return unix.Mknod(dir+"/device", unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0)))
		})
		try(dir+"/link", func() error { return os.Symlink("/etc/passwd", dir+"/link") })
		try(dir+"/old", func() error {
			f, err := os.OpenFile(dir+"/old", os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = fmt.Fprintln(f, "appended inside")
			return err
		})
	}
	return nil
}

// race reads and writes through a name that somebody changes, so many times, and
// counts what it read.
func race(args []string) error {
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	read := map[string]int{}
	for i := range times {
		if b, err := os.ReadFile(args[0] + "/file"); err == nil {
			read[string(b)]++
		} else {
			read[errors.Unwrap(err).Error()]++
		}
		os.WriteFile(fmt.Sprintf("%s/new%d", args[0], i%10), []byte("written inside\n"), 0o644) // wherever that is by now
		os.Mkdir(fmt.Sprintf("%s/made%d", args[0], i%10), 0o755)
	}
	for what, n := range read {
		fmt.Println(n, what)
	}
	return nil
}
