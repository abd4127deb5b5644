package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func rate(n int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", float64(n)/1e6/took.Seconds())
}

// drain is the rate at which 64 MiB, no more and no less, come out of r.
func drain(r io.Reader, b []byte) (string, error) {
	begin, total := time.Now(), int64(0)
	for {
		n, err := r.Read(b)
		total += int64(n)
		if err == io.EOF {
			break
		} else if err != nil {
			return "", err
		}
	}
	if total != 64<<20 {
		return "", fmt.Errorf("%d bytes", total)
	}
	return rate(total, time.Since(begin)), nil
}

func readAll(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return drain(f, make([]byte, 1<<20))
}

func writeAll() (string, error) {
	f, err := os.Create("/rw/written")
	if err != nil {
		return "", err
	}
	defer f.Close()
	begin, b := time.Now(), make([]byte, 1<<20)
	for range 32 {
		if _, err := f.Write(b); err != nil {
			return "", err
		}
	}
	return rate(32<<20, time.Since(begin)), nil
}

func listAll() (string, error) {
	begin := time.Now()
	all, err := os.ReadDir("/ro/small")
	if err != nil {
		return "", err
	}
	for _, e := range all {
		if _, err := e.Info(); err != nil {
			return "", err
		}
	}
	took := time.Since(begin)
	return fmt.Sprintf("%v, %v a file", took, took/time.Duration(len(all))), nil
}

func readMany() (string, error) {
	all, err := filepath.Glob("/big/small/*")
	if err != nil || len(all) != 300 {
		return "", fmt.Errorf("%d files, %v", len(all), err)
	}
	begin := time.Now()
	for _, path := range all {
		if _, err := os.ReadFile(path); err != nil {
			return "", err
		}
	}
	took := time.Since(begin)
	return fmt.Sprintf("%v, %v a file", took, took/time.Duration(len(all))), nil
}

func sink() (string, error) {
	f, err := dial(portSink)
	if err != nil {
		return "", err
	}
	defer f.Close()
	begin, b := time.Now(), make([]byte, 256<<10)
	for range 256 {
		if _, err := f.Write(b); err != nil {
			return "", err
		}
	}
	if err := unix.Shutdown(int(f.Fd()), unix.SHUT_WR); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(f, b[:1]); err != nil {
		return "", err
	}
	return rate(64<<20, time.Since(begin)), nil
}

func source() (string, error) {
	f, err := dial(portSource)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return drain(f, make([]byte, 256<<10))
}

// accept echoes what the host sends until it sends no more.
func accept() (string, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: portGuest}); err != nil {
		return "", err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return "", err
	}
	say("listening", nil, "")
	conn, _, err := unix.Accept(fd)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(conn), "vsock")
	defer f.Close()
	n, err := io.Copy(f, struct{ io.Reader }{f})
	return fmt.Sprint(n, " bytes echoed"), err
}

func echo() (string, error) {
	f, err := dial(portEcho)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, times := make([]byte, 64), []time.Duration(nil)
	for range 1000 {
		begin := time.Now()
		if _, err := f.Write(b); err != nil {
			return "", err
		}
		if _, err := io.ReadFull(f, b); err != nil {
			return "", err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return fmt.Sprintf("median %v, min %v", times[500], times[0]), nil
}
