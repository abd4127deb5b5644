package nicshadow_test

import (
	"io"
	"net"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
)

// pair is two cards on a switch whose policies forward.
func pair(b *testing.B) (a, c *card) {
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	b.Cleanup(func() { sw.Close() })
	a, c = newCard(b, sw, 1), newCard(b, sw, 2)
	put(b, table, 1, program(b, rule.Forward, 1))
	put(b, table, 2, program(b, rule.Forward, 1))
	return a, c
}

// BenchmarkRoundTrip is a datagram of 64 bytes from one container to another
// and back: four passes through a card, two wake-ups of the switch.
func BenchmarkRoundTrip(b *testing.B) {
	a, c := pair(b)
	var server, client *net.UDPConn
	if err := tap.In(c.ns, func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	if err := tap.In(a.ns, func() (err error) {
		client, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	buf := make([]byte, 64)
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := client.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTCP is a stream from one container to another.
func BenchmarkTCP(b *testing.B) {
	a, c := pair(b)
	var l net.Listener
	if err := tap.In(c.ns, func() (err error) {
		l, err = net.Listen("tcp4", "10.0.0.2:9")
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan int64)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- 0
			return
		}
		n, _ := io.Copy(io.Discard, conn)
		done <- n
	}()
	var conn net.Conn
	if err := tap.In(a.ns, func() (err error) {
		conn, err = net.Dial("tcp4", "10.0.0.2:9")
		return err
	}); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	var sent int64
	for b.Loop() {
		n, err := conn.Write(buf)
		if err != nil {
			b.Fatal(err)
		}
		sent += int64(n)
	}
	conn.Close()
	if n := <-done; n != sent {
		b.Errorf("received %d bytes of %d", n, sent)
	}
}
