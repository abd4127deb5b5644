package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Maps that programs do not make for themselves, by name.
const (
	sharedCounters = "counters"
	sharedPorts    = "ports"
	sharedEvents   = "events"
	sharedControl  = "control"
	sharedHits     = "hits"
	sharedBuckets  = "buckets"
	sharedFlows    = "flows"
	sharedSeeds    = "seeds"
	sharedLease    = "lease"
)

// ringSize is how much of events waits for the supervisor, in bytes.
const ringSize = 1 << 20

// A Fabric is what the cards of one switch share: the forwarding table, the
// counters, and the events that the supervisor reads.
type Fabric struct {
	reasons                 Reasons
	counters, ports, events *ebpf.Map
	reader                  *ringbuf.Reader

	// mu guards which slots are free, and the next generation.
	mu         sync.Mutex
	slots      []bool
	generation uint32
}

// NewFabric makes a fabric of at most n cards.
func NewFabric(n int, r Reasons) (_ *Fabric, err error) {
	f := &Fabric{reasons: r, slots: make([]bool, n)}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&f.counters, ebpf.MapSpec{Name: "seki_counters", Type: ebpf.Array, KeySize: 4, ValueSize: 8 * NumCounters, MaxEntries: uint32(n)}},
		{&f.ports, ebpf.MapSpec{Name: "seki_ports", Type: ebpf.Hash, KeySize: 8, ValueSize: portLen, MaxEntries: uint32(n), Flags: readOnly}},
		{&f.events, ebpf.MapSpec{Name: "seki_events", Type: ebpf.RingBuf, MaxEntries: ringSize}},
	} {
		if *m.to, err = ebpf.NewMap(&m.spec); err != nil {
			return nil, fmt.Errorf("ebpf: map %s: %w", m.spec.Name, err)
		}
	}
	if f.reader, err = ringbuf.NewReader(f.events); err != nil {
		return nil, fmt.Errorf("ebpf: events: %w", err)
	}
	return f, nil
}

// Close ends a Read and gives the maps back. Programs that are attached keep
// theirs.
func (f *Fabric) Close() error {
	var errs []error
	if f.reader != nil {
		errs = append(errs, f.reader.Close())
	}
	for _, m := range []*ebpf.Map{f.counters, f.ports, f.events} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// take gives out a slot, with its counters at 0.
func (f *Fabric) take() (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, taken := range f.slots {
		if !taken {
			if err := f.counters.Put(uint32(i), make([]uint64, NumCounters)); err != nil {
				return 0, fmt.Errorf("ebpf: counters: %w", err)
			}
			f.slots[i] = true
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("ebpf: more than %d cards", len(f.slots))
}

func (f *Fabric) give(slot uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots[slot] = false
}

// next is the generation of the next program.
func (f *Fabric) next() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation++
	return f.generation
}

// A Kind says what an [Event] is about.
type Kind uint8

// The kinds.
const (
	Judged  Kind = eventJudged  // a program judged what the card sent
	Refused Kind = eventRefused // nothing did, the frame dropped before
	Told    Kind = eventTold    // one more word about a frame that was judged
	Arrived Kind = eventArrived // a program judged what the card is sent
)

// An Event is about one frame.
type Event struct {
	Kind       Kind
	Slot, Card uint32 // of the sender, and of the card whose program tells it
	Generation uint32 // of that program
	Reason     uint8
	Forward    bool
	Outcome    uint32 // pc << 2 | verdict
	// Suppressed and Lost are how many events Card has left out so far, for its
	// limit and for want of room; they wrap.
	Suppressed, Lost uint32
	Key              frame.Key
	// Frame begins with as much of the frame as was kept; its length is the
	// frame's. It is valid until the next Read.
	Frame []byte
}

// Events reads the events of a fabric.
type Events struct {
	fabric *Fabric
	record ringbuf.Record
	buf    []byte
}

// Events returns the reader of the fabric's events. It is for one goroutine.
func (f *Fabric) Events() *Events {
	return &Events{fabric: f, buf: make([]byte, frame.MaxLength+8)}
}

// ErrEvent says that an event is none: a bug of this package.
var ErrEvent = errors.New("ebpf: an event that is none")

// Read waits for the next event. After the fabric's Close the error is
// os.ErrClosed.
func (r *Events) Read(e *Event) error {
	if err := r.fabric.reader.ReadInto(&r.record); err != nil {
		return err
	}
	b, ne := r.record.RawSample, binary.NativeEndian
	if len(b) < eventHead {
		return ErrEvent
	}
	n := int(ne.Uint32(b[eventData:]))
	length := int(ne.Uint32(b[eventLength:]))
	if n > len(b)-eventHead || n > eventSnap || length > frame.MaxLength {
		return ErrEvent
	}
	*e = Event{
		Kind: Kind(b[eventKind]), Reason: b[eventReason], Forward: b[eventForward] != 0,
		Slot: ne.Uint32(b[eventSlot:]), Card: ne.Uint32(b[eventCard:]),
		Generation: ne.Uint32(b[eventGeneration:]), Outcome: ne.Uint32(b[eventOutcome:]),
		Suppressed: ne.Uint32(b[eventSuppressed:]), Lost: ne.Uint32(b[eventLost:]),
	}
	for i := range e.Key.Words {
		e.Key.Words[i] = ne.Uint64(b[eventKey+8*i:])
	}
	if e.Key.Class() == frame.ClassNone {
		e.Key = frame.Key{}
	}
	e.Frame = r.whole(b[eventHead:eventHead+n], length, ne.Uint16(b[eventTCI:]), b[eventProto:eventProto+2])
	return nil
}

// whole is the frame with the tag back in its place.
func (r *Events) whole(b []byte, length int, tci uint16, proto []byte) []byte {
	const macs = 12
	if proto[0]|proto[1] == 0 || len(b) < macs {
		copy(r.buf, b)
		return r.buf[:max(length, 0)]
	}
	out := append(r.buf[:0], b[:macs]...)
	out = append(out, proto...)
	out = binary.BigEndian.AppendUint16(out, tci)
	copy(r.buf[len(out):], b[macs:])
	return r.buf[:length]
}
