package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"sekimori/nicshadow"
)

// underLoad is how many reloads are made while frames pass.
const underLoad = 1000

// Two policies that both let a frame pass, each in its own way, so that the
// counters say which judged.
var watched = []string{
	`result = policy(allow_arp = True, allow_ipv4 = True, allow_udp = True)`,
	`result = policy(allow_arp = True, allow_ipv4 = True, allow_udp = audit(False))`,
}

// reloading sends numbered datagrams from container to container, on each data
// path, while the sender's policy is replaced a thousand times: every one must
// arrive, in order, judged by the old program or by the new one.
func reloading(w io.Writer, _ int) ([]bar, error) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "Reloads under load: not root: not measured")
		return nil, nil
	}
	var bars []bar
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d reloads while frames pass\n\n", underLoad)
	fmt.Fprint(t, "data path\tframes\tby the one policy\tby the other\tby neither\tlost\tms a reload\t\n")
	for _, m := range []struct {
		name string
		make func(*track) error
	}{{"this process", (*track).user}, {"programs of the kernel", (*track).kernel}} {
		r, err := reloadOn(m.make)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%.2f\t\n", m.name, r.sent, r.one, r.other, r.neither(), r.sent-r.arrived, r.took)
		bars = append(bars, bar{"frames lost, or judged by neither policy, in a thousand reloads: " + m.name, float64(r.sent - r.arrived + r.neither()), 0, true})
	}
	return bars, t.Flush()
}

// A reloaded is what became of the frames. took is of one reload, in ms.
type reloaded struct {
	sent, arrived, one, other uint64
	took                      float64
}

func (r *reloaded) neither() uint64 { return r.sent - r.one - r.other }

func reloadOn(make func(*track) error) (r *reloaded, err error) {
	t := &track{}
	defer t.end()
	if err := make(t); err != nil {
		return nil, err
	}
	var programs [2][]byte
	for i, source := range watched {
		p, err := evaluate([]byte(source), "result")
		if err != nil {
			return nil, err
		}
		c, err := p.Compile(pathIdentity(0))
		if err != nil {
			return nil, err
		}
		programs[i] = c.Bytes()
	}
	if err := t.put(programs[1]); err != nil {
		return nil, err
	}
	from, to, err := t.udp()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	defer to.Close()
	if err := errors.Join(t.acquaint(), pave(from, to)); err != nil {
		return nil, err
	}
	before, err := t.table.Stats(1)
	if err != nil {
		return nil, err
	}
	r = &reloaded{}
	var arrived atomic.Uint64
	stop, sent, took := newChan(), newChan(), time.Duration(0)
	var sendErr error
	go func() { // ends with stop, or an error of its socket
		defer close(sent)
		for b := []byte{7: 0}; !closedChan(stop); {
			if r.sent > arrived.Load()+64 { // so that no queue of the kernel overflows
				time.Sleep(5 * time.Microsecond)
				continue
			}
			binary.BigEndian.PutUint64(b, r.sent)
			if _, sendErr = from.Write(b); sendErr != nil {
				return
			}
			r.sent++
		}
	}()
	heard := newChan()
	go func() { // ends when nothing comes any more
		defer close(heard)
		for b := []byte{7: 0}; ; {
			to.SetReadDeadline(time.Now().Add(2 * time.Second))
			if _, err := to.Read(b); err != nil || binary.BigEndian.Uint64(b) != arrived.Load() {
				return
			}
			arrived.Add(1)
		}
	}()
	for i := range underLoad {
		begin := time.Now()
		if err := t.put(programs[i%2]); err != nil {
			return nil, err
		}
		took += time.Since(begin)
		for was := arrived.Load(); arrived.Load() == was && !closedChan(heard); { // some frames for each
			time.Sleep(20 * time.Microsecond)
		}
	}
	close(stop)
	<-sent
	<-heard
	after, err := t.table.Stats(1)
	r.arrived, r.took = arrived.Load(), ms(took)/underLoad
	r.one, r.other = after.Forwarded-before.Forwarded, after.WouldDrop-before.WouldDrop
	return r, errors.Join(err, sendErr)
}

func newChan() chan struct{} { return make(chan struct{}) }

func closedChan(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// acquaint tells each side of the other's card, for good: no ARP is among the
// frames that are counted.
func (t *track) acquaint() error {
	var errs []error
	for i := range t.ns {
		errs = append(errs, t.in(i, func() error {
			c := exec.Command("ip", "neigh", "replace", pathAddr(1-i).String(), "lladdr", pathMAC(1-i).String(), "dev", "eth0", "nud", "permanent")
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("ip neigh: %w: %s", err, out)
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// pave sends until one datagram has come: the path is open then.
func pave(from, to *net.UDPConn) error {
	b := []byte{7: 0}
	for range 50 {
		if _, err := from.Write(b); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		to.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := to.Read(b); err == nil {
			for { // what else was on its way
				if _, err := to.Read(b); err != nil {
					return nil
				}
			}
		}
	}
	return errors.New("no datagram arrives")
}

// put puts a program in force for the first container.
func (t *track) put(program []byte) error {
	hash, err := t.table.Load(1, program)
	if err != nil {
		return err
	}
	return t.table.Swap(1, hash, nicshadow.Enforce)
}
