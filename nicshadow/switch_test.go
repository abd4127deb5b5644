package nicshadow_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A bench is a switch with fake cards: containers 1 to n, whose policies
// forward, and the uplink "up" with address macOf(100).
type bench struct {
	table *nicshadow.Table
	sw    *nicshadow.Switch
	cards map[int]*fakeDevice
}

const up = 100

func newBench(t testing.TB, cfg nicshadow.Config, n int) *bench {
	t.Helper()
	b := &bench{table: nicshadow.NewTable(), cards: make(map[int]*fakeDevice)}
	cfg.Table = b.table
	b.sw = nicshadow.NewSwitch(cfg)
	t.Cleanup(func() { b.sw.Close() })
	for i := 1; i <= n; i++ {
		put(t, b.table, nicshadow.Sender(i), program(t, rule.Forward, 1))
		b.add(t, nicshadow.PortConfig{Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i)}, i)
	}
	b.add(t, nicshadow.PortConfig{Name: "up", MAC: macOf(up), Trusted: true}, up)
	return b
}

func (b *bench) add(t testing.TB, cfg nicshadow.PortConfig, i int) {
	t.Helper()
	b.cards[i] = newFake()
	cfg.Device = b.cards[i]
	if err := b.sw.AddPort(cfg); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reading", func() bool { return b.cards[i].reads.Load() == 1 })
}

// stats are those of card i, the uplink's included.
func (b *bench) stats(t testing.TB, i int) nicshadow.Stats {
	if i == up {
		st, err := b.sw.TrustedStats("up")
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	return stats(t, b.table, nicshadow.Sender(i))
}

// send sends a frame from card i and waits until the switch has dealt with it.
func (b *bench) send(t testing.TB, i int, f []byte) {
	t.Helper()
	d := b.cards[i]
	reads := d.reads.Load()
	d.in <- f
	// A frame is done with when its port reads the next one.
	eventually(t, "read, judged and delivered", func() bool { return d.reads.Load() > reads })
}

func TestForward(t *testing.T) {
	unknown := frame.MAC{2, 0, 0, 0, 9, 9}
	fromOutside := func(src frame.MAC, dst frame.MAC) []byte { return arpReply(dst, src, "10.0.0.254", "10.0.0.1") }
	long := append(udp(2, 1, 0), make([]byte, 1500)...)
	tests := []struct {
		name  string
		from  int
		frame []byte
		to    []int // the cards that get it
		want  nicshadow.Reason
	}{
		{"unicast", 1, udp(2, 1, 7), []int{2}, nicshadow.Allowed},
		{"to the uplink", 1, arpReply(macOf(up), macOf(1), "10.0.0.1", "10.0.0.254"), []int{up}, nicshadow.Allowed},
		{"broadcast", 1, arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.1"), []int{2, 3, up}, nicshadow.Allowed},
		{"unknown unicast is not flooded", 1, arpReply(unknown, macOf(1), "10.0.0.1", "10.0.0.9"), nil, nicshadow.UnknownDestination},
		{"to oneself", 1, udp(1, 1, 0), nil, nicshadow.UnknownDestination},
		{"from outside", up, fromOutside(macOf(up), macOf(1)), []int{1}, nicshadow.Allowed},
		{"from behind the uplink", up, fromOutside(unknown, macOf(1)), []int{1}, nicshadow.Allowed},
		{"broadcast from outside", up, fromOutside(macOf(up), broadcast), []int{1, 2, 3}, nicshadow.Allowed},
		{"a container's address from outside", up, fromOutside(macOf(2), macOf(1)), nil, nicshadow.IdentityMismatch},
		{"a group's address from outside", up, fromOutside(broadcast, macOf(1)), nil, nicshadow.IdentityMismatch},
		{"a stub from outside", up, []byte{1, 2, 3}, nil, nicshadow.FromFrame(frame.Truncated)},
		{"too long", 1, long, nil, nicshadow.FromFrame(frame.TooLong)},
		{"too long from outside", up, long, nil, nicshadow.FromFrame(frame.TooLong)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, nicshadow.Config{}, 3)
			b.send(t, tt.from, tt.frame)
			for _, i := range tt.to {
				eventually(t, fmt.Sprint("received by ", i), func() bool { return len(b.cards[i].frames()) == 1 })
				if got := b.cards[i].frames()[0]; !bytes.Equal(got, tt.frame) {
					t.Errorf("card %d received %x; want %x", i, got, tt.frame)
				}
			}
			received := 0
			for _, c := range b.cards {
				received += len(c.frames())
			}
			if received != len(tt.to) {
				t.Errorf("%d copies; want %d", received, len(tt.to))
			}
			if st := b.stats(t, tt.from); tt.want != nicshadow.Allowed && reason(st, tt.want.String()) != 1 {
				t.Errorf("Reasons = %+v; want one %q", st.Reasons, tt.want)
			}
		})
	}
}

// TestForgedSource lets a policy without guards pass frames with another
// card's source address: macof's attack. Nothing may move.
func TestForgedSource(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 3)
	forged := udp(3, 1, 0)
	m2 := macOf(2)
	copy(forged[6:], m2[:])
	for range 10 {
		b.send(t, 1, forged)
	}
	b.send(t, 3, udp(2, 3, 5))
	eventually(t, "received by 2", func() bool { return len(b.cards[2].frames()) == 1 })
	if n := len(b.cards[1].frames()); n != 0 {
		t.Errorf("card 1 received %d frames for the address that it stole", n)
	}
}

// TestClosedPort: without a program in force nothing leaves a port and nothing
// reaches it.
func TestClosedPort(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 1)
	if err := b.table.Register(2, "new"); err != nil {
		t.Fatal(err)
	}
	b.add(t, nicshadow.PortConfig{Name: "new", Sender: 2, MAC: macOf(2)}, 2)
	b.send(t, 2, udp(1, 2, 0))
	b.send(t, 1, udp(2, 1, 0))
	eventually(t, "refused", func() bool { return reason(b.stats(t, 1), "receiver closed") == 1 })
	if n := reason(b.stats(t, 2), "no program"); n != 1 {
		t.Errorf("no program: %d; want 1", n)
	}
	if len(b.cards[1].frames())+len(b.cards[2].frames()) != 0 {
		t.Error("a frame passed a closed port")
	}
	put(t, b.table, 2, program(t, rule.Forward, 1)) // the first Swap opens it
	b.send(t, 2, udp(1, 2, 0))
	b.send(t, 1, udp(2, 1, 0))
	eventually(t, "open", func() bool { return len(b.cards[1].frames()) == 1 && len(b.cards[2].frames()) == 1 })
	if err := b.table.Unregister(2); err != nil {
		t.Fatal(err)
	}
	b.send(t, 1, udp(2, 1, 0))
	eventually(t, "closed again", func() bool { return reason(b.stats(t, 1), "receiver closed") == 2 })
}

// TestReceiverFails: a receiver that is full or gone is counted, and costs
// the others nothing.
func TestReceiverFails(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 3)
	b.cards[2].failWith(syscall.EAGAIN)
	b.send(t, 1, arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.1"))
	eventually(t, "counted", func() bool { return reason(b.stats(t, 1), "receiver queue full") == 1 })
	b.cards[2].failWith(syscall.EIO)
	b.send(t, 1, arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.1"))
	eventually(t, "counted", func() bool { return reason(b.stats(t, 1), "receiver down") == 1 })
	eventually(t, "received by 3", func() bool { return len(b.cards[3].frames()) == 2 })
	st := b.stats(t, 1)
	if st.Forwarded != 2 || st.Dropped != 0 || st.Undelivered != 2 {
		t.Errorf("Stats = %+v; want 2 forwarded, 2 undelivered", st)
	}
}

// TestPortLost: a card that the container deleted ends its port, once, and no
// other's.
func TestPortLost(t *testing.T) {
	var log lockedBuffer
	b := newBench(t, nicshadow.Config{Log: log.logger()}, 2)
	b.cards[1].in <- nil // EBADFD
	eventually(t, "logged", func() bool { return strings.Contains(log.String(), "port lost") })
	b.send(t, 2, arpReply(broadcast, macOf(2), "10.0.0.2", "10.0.0.2"))
	if err := b.sw.RemovePort("c1"); err != nil {
		t.Errorf("RemovePort of a lost port = %v", err)
	}
	if n := strings.Count(log.String(), "port lost"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

func TestAddPortRefused(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 1)
	tests := []struct {
		name string
		cfg  nicshadow.PortConfig
		want string
		is   error
	}{
		{"name in use", nicshadow.PortConfig{Name: "c1", Sender: 9, MAC: macOf(9)}, "add port c1: port exists", nicshadow.ErrPortExists},
		{"mac in use", nicshadow.PortConfig{Name: "x", Sender: 9, MAC: macOf(1)}, "mac is in use", nicshadow.ErrMACInUse},
		{"uplink's mac", nicshadow.PortConfig{Name: "x", Sender: 9, MAC: macOf(up)}, "mac is in use", nicshadow.ErrMACInUse},
		{"group mac", nicshadow.PortConfig{Name: "x", Sender: 9, MAC: broadcast}, "is not an address of one card", nil},
		{"no mac", nicshadow.PortConfig{Name: "x", Sender: 9}, "is not an address of one card", nil},
		{"nobody's", nicshadow.PortConfig{Name: "x", MAC: macOf(9)}, "either trusted or has a sender", nil},
		{"trusted sender", nicshadow.PortConfig{Name: "x", Sender: 9, Trusted: true, MAC: macOf(9)}, "either trusted or has a sender", nil},
		{"mtu", nicshadow.PortConfig{Name: "x", Sender: 9, MAC: macOf(9), MTU: 1 << 17}, "mtu 131072 is out of range", nil},
	}
	for _, tt := range tests {
		tt.cfg.Device = newFake()
		err := b.sw.AddPort(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: AddPort = %v; want %q", tt.name, err, tt.want)
		}
	}
	if err := b.sw.RemovePort("x"); !errors.Is(err, nicshadow.ErrNoPort) {
		t.Errorf("RemovePort = %v; want %v", err, nicshadow.ErrNoPort)
	}
	if err := b.sw.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := b.sw.AddPort(nicshadow.PortConfig{Name: "x", Sender: 9, MAC: macOf(9), Device: newFake()}); !errors.Is(err, nicshadow.ErrClosed) {
		t.Errorf("AddPort afterwards = %v; want %v", err, nicshadow.ErrClosed)
	}
}

// TestRemovePortDuringTraffic adds and removes a port while the others send to
// it, and counts goroutines at the end.
func TestRemovePortDuringTraffic(t *testing.T) {
	before := runtime.NumGoroutine()
	b := newBench(t, nicshadow.Config{}, 2)
	stop, stopped, card1 := make(chan struct{}), make(chan struct{}), b.cards[1]
	go func() {
		defer close(stopped)
		for n := uint64(0); ; n++ {
			select {
			case card1.in <- udp(2, 1, n):
			case <-stop:
				return
			}
		}
	}()
	for range 500 {
		if err := b.sw.RemovePort("c2"); err != nil {
			t.Fatal(err)
		}
		b.add(t, nicshadow.PortConfig{Name: "c2", Sender: 2, MAC: macOf(2)}, 2)
	}
	close(stop)
	<-stopped
	if err := b.sw.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before })
	st := stats(t, b.table, 1)
	if lost := st.Forwarded - stats(t, b.table, 2).Delivered - st.Undelivered; lost != 0 {
		t.Errorf("%d frames neither delivered nor counted: %+v", lost, st)
	}
}

// BenchmarkFrame is the way of a frame through the switch without the devices.
func BenchmarkFrame(b *testing.B) {
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	put(b, table, 1, program(b, rule.Forward, 1))
	put(b, table, 2, program(b, rule.Forward, 1))
	src, dst := &loopDevice{frame: udp(2, 1, 0), n: make(chan int)}, &sinkDevice{}
	if err := sw.AddPort(nicshadow.PortConfig{Name: "a", Sender: 1, MAC: macOf(1), Device: src}); err != nil {
		b.Fatal(err)
	}
	if err := sw.AddPort(nicshadow.PortConfig{Name: "b", Sender: 2, MAC: macOf(2), Device: dst}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	src.n <- b.N
	src.n <- 0 // taken when the last one is done with
}
