package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reach says of each "tcp HOST:PORT" or "udp HOST:PORT" what came of it: what
// was answered, over TCP to a megabyte, or why nothing was.
func reach(targets []string) error {
	for _, target := range targets {
		network, addr, _ := strings.Cut(target, " ")
		fmt.Printf("%s: %s\n", target, reachOne(network, addr))
	}
	return nil
}

func reachOne(network, addr string) string {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if errors.Is(err, unix.ECONNREFUSED) {
		return "refused"
	}
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if network == "udp" {
		c.SetDeadline(time.Now().Add(2 * time.Second)) // it may be refused in silence
		c.Write([]byte("hello"))
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			return "no answer"
		}
		return string(b[:n])
	}
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		return err.Error()
	}
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
