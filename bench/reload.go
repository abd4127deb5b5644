package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"sekimori/nicshadow"
	"sekimori/vmm/hypercall"
)

// Two policies that differ on one frame, so that who judges it shows.
const (
	reloads = 300
	opened  = `result = policy(allow_tcp = lambda dst_port: dst_port == 443, guard = "off")`
	closed  = `result = policy(allow_tcp = lambda dst_port: dst_port == 80, guard = "off")`
)

// reload measures how long a policy takes to be in force while frames are
// judged without a pause on another processor: from the call to the first
// frame that the new program judges. The program goes the way it goes in the
// product, as the bytes of hypercalls load and swap.
func reload(w io.Writer, _ int) ([]bar, error) {
	table := nicshadow.NewTable()
	secret := [hypercall.SecretSize]byte{1}
	client := hypercall.NewClient(hypercall.Direct(hypercall.NewServer(backend{table}, secret, 0)))
	if err := client.Hello(secret); err != nil {
		return nil, err
	}
	if err := client.Register(hypercall.Registration{Sender: 1, Name: "bench", MAC: ownMAC}); err != nil {
		return nil, err
	}
	traffic := newTraffic(table)
	defer traffic.stop()

	var whole, call []time.Duration
	for i := range reloads {
		want, source := i%2 == 0, opened
		if !want {
			source = closed
		}
		begin := time.Now()
		program, err := compile([]byte(source), "result")
		if err != nil {
			return nil, err
		}
		bytes := program.Bytes()
		loading := time.Now()
		hash, err := client.Load(1, bytes)
		if err == nil {
			err = client.Swap(1, hash, hypercall.ModeEnforce)
		}
		if err != nil {
			return nil, err
		}
		seen, err := traffic.seen(want)
		if err != nil {
			return nil, err
		}
		whole, call = append(whole, seen.Sub(begin)), append(call, seen.Sub(loading))
	}
	fmt.Fprintf(w, "Reloading a policy under traffic (%.1f M frames judged meanwhile), %d times: us until the first frame it judges\n\n", float64(traffic.judged.Load())/1e6, reloads)
	fmt.Fprintf(w, "%28s %8s %8s %8s\n", "", "median", "90 %", "most")
	for _, r := range []struct {
		name string
		took []time.Duration
	}{{"from hypercall load", call}, {"from Starlark source", whole}} {
		slices.Sort(r.took)
		fmt.Fprintf(w, "%28s %8.1f %8.1f %8.1f\n", r.name, us(r.took[len(r.took)/2]), us(r.took[len(r.took)*9/10]), us(r.took[len(r.took)-1]))
	}
	return []bar{
		{"reload in force, hypercall to first frame, median: ms", ms(call[len(call)/2]), 1, true},
		{"reload in force, source to first frame, median: ms", ms(whole[len(whole)/2]), 1, true},
	}, nil
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// A traffic judges one frame again and again on a goroutine of its own, until
// stop, and notes when the verdict last changed.
type traffic struct {
	judged  atomic.Uint64
	verdict atomic.Int64 // time of the change in ns since began; negative: drops
	began   time.Time
	ending  atomic.Bool
	ended   chan struct{}
}

func newTraffic(table *nicshadow.Table) *traffic {
	t := &traffic{began: time.Now(), ended: make(chan struct{})}
	t.verdict.Store(-1)
	go t.run(table)
	return t
}

func (t *traffic) run(table *nicshadow.Table) {
	defer close(t.ended)
	b := ipv4(6, own, peer, tcp(40000, 443, 100))
	var j nicshadow.Judgement
	last := false
	for !t.ending.Load() {
		if forward := table.Judge(1, b, &j); forward != last {
			last = forward
			at := time.Since(t.began).Nanoseconds()
			if !forward {
				at = -at
			}
			t.verdict.Store(at)
		}
		t.judged.Add(1)
	}
}

func (t *traffic) stop() {
	t.ending.Store(true)
	<-t.ended
}

// seen waits until frames are judged as want and says since when.
func (t *traffic) seen(want bool) (time.Time, error) {
	for limit := time.Now().Add(time.Second); time.Now().Before(limit); {
		at := t.verdict.Load()
		if (at > 0) == want {
			return t.began.Add(time.Duration(max(at, -at))), nil
		}
	}
	return time.Time{}, errors.New("reload: no frame was judged by the new program within a second")
}

// backend is what cmd/seki joins the hypercalls to the table with.
type backend struct{ table *nicshadow.Table }

var _ hypercall.Backend = backend{}

func (b backend) Register(r hypercall.Registration) error {
	return b.table.Register(nicshadow.Sender(r.Sender), r.Name)
}

func (b backend) Load(sender uint32, program []byte) ([hypercall.HashSize]byte, error) {
	return b.table.Load(nicshadow.Sender(sender), program)
}

func (b backend) Swap(sender uint32, hash [hypercall.HashSize]byte, _ hypercall.Mode) error {
	return b.table.Swap(nicshadow.Sender(sender), hash, nicshadow.Enforce)
}

func (b backend) SetMode(uint32, hypercall.Mode) error { return errors.ErrUnsupported }

func (b backend) Stats(uint32) (hypercall.Stats, error) {
	return hypercall.Stats{}, errors.ErrUnsupported
}

func (b backend) Unregister(sender uint32) error {
	return b.table.Unregister(nicshadow.Sender(sender))
}
