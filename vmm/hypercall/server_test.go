package hypercall_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekimori/vmm/hypercall"
)

// A backend records what it was asked and keeps what is in force, to show that
// a refused call changes nothing.
type backend struct {
	calls   []string
	staged  map[[32]byte]bool
	inForce [32]byte
	program []byte
	stats   hypercall.Stats
	fail    error
}

func newBackend() *backend { return &backend{staged: make(map[[32]byte]bool)} }

func (b *backend) do(format string, args ...any) error {
	b.calls = append(b.calls, fmt.Sprintf(format, args...))
	return b.fail
}

func (b *backend) Register(g hypercall.Registration) error {
	return b.do("register %+v", g)
}

func (b *backend) Load(sender uint32, program []byte) (hash [32]byte, err error) {
	b.program = program
	hash = sha256.Sum256(program)
	b.staged[hash] = true
	return hash, b.do("load %d %q", sender, program)
}

func (b *backend) Swap(sender uint32, hash [32]byte, m hypercall.Mode) error {
	if !b.staged[hash] {
		return hypercall.ErrNotLoaded
	}
	b.inForce = hash
	return b.do("swap %d %d", sender, m)
}

func (b *backend) SetMode(sender uint32, m hypercall.Mode) error {
	return b.do("mode %d %d", sender, m)
}

func (b *backend) Stats(sender uint32) (hypercall.Stats, error) {
	return b.stats, b.do("stats %d", sender)
}

func (b *backend) Unregister(sender uint32) error { return b.do("unregister %d", sender) }

var secret = [32]byte{1, 2, 3, 31: 9}

var registration = hypercall.Registration{
	Sender: 7, Name: "web-1", MAC: [6]byte{2, 0, 0, 0, 0, 1},
	ProcessGroup: 42, Cgroup: 1 << 40, NetNS: 4026531840, PIDNS: 4026531836,
}

// TestCalls makes every call once and looks at what arrives.
func TestCalls(t *testing.T) {
	b := newBackend()
	b.stats = hypercall.Stats{
		Mode: hypercall.ModeAudit, Program: [32]byte{5}, Frames: 1, Bytes: 2, Forwarded: 3, Dropped: 4, WouldDrop: 5, Delivered: 6,
		Reasons: []hypercall.ReasonCount{{Reason: "policy", WouldDrop: true, Frames: 9}, {Reason: "llc frame", Frames: 1}},
		Lines:   []hypercall.LineCount{{File: "web.star", Line: 3, Col: 9, Kind: "guard", Name: "arp", Frames: 8}},
	}
	c := hypercall.NewClient(hypercall.Direct(hypercall.NewServer(b, secret, 0)))
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("hello", c.Hello(secret))
	check("register", c.Register(registration))
	hash, err := c.Load(7, []byte("program"))
	check("load", err)
	if want := sha256.Sum256([]byte("program")); hash != want {
		t.Errorf("Load = %x; want %x", hash, want)
	}
	check("swap", c.Swap(7, hash, hypercall.ModeEnforce))
	check("mode", c.SetMode(7, hypercall.ModeAudit))
	st, err := c.Stats(7)
	check("stats", err)
	if d := cmp.Diff(b.stats, st); d != "" {
		t.Errorf("Stats (-sent +received):\n%s", d)
	}
	check("unregister", c.Unregister(7))
	want := []string{
		fmt.Sprintf("register %+v", registration), `load 7 "program"`, "swap 7 1", "mode 7 2", "stats 7", "unregister 7",
	}
	if d := cmp.Diff(want, b.calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

// request builds a request by hand.
func request(version uint16, call hypercall.Call, seq uint64, payload []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, hypercall.Magic)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, uint16(call))
	b = le.AppendUint64(b, seq)
	b = le.AppendUint32(b, uint32(len(payload)))
	b = le.AppendUint32(b, 0)
	return append(b, payload...)
}

func helloPayload(lo, hi uint16, secret [32]byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, lo)
	b = binary.LittleEndian.AppendUint16(b, hi)
	return append(append(b, 0, 0, 0, 0), secret[:]...)
}

func senderPayload(sender uint32, rest ...byte) []byte {
	return append(append(binary.LittleEndian.AppendUint32(nil, sender), 0, 0, 0, 0), rest...)
}

func status(t *testing.T, answer []byte) hypercall.Status {
	t.Helper()
	h, _, err := hypercall.DecodeHeader(answer)
	if err != nil {
		t.Fatalf("answer: %v", err)
	}
	return h.Status
}

// TestRefused breaks one rule a case. Each is answered with its own status,
// counted under it, and leaves what is in force alone.
func TestRefused(t *testing.T) {
	other := secret
	other[31]++
	hash := bytes.Repeat([]byte{1}, 32)
	long := request(1, hypercall.CallLoad, 10, senderPayload(7, bytes.Repeat([]byte{1}, 5000)...))
	edit := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	tests := []struct {
		name   string
		opened bool // hello was answered, with number 5
		req    []byte
		want   hypercall.Status
	}{
		{"empty", true, nil, hypercall.StatusMalformed},
		{"short header", true, request(1, hypercall.CallStats, 10, nil)[:23], hypercall.StatusMalformed},
		{"wrong magic", true, edit(request(1, hypercall.CallStats, 10, senderPayload(7)), 0, 'X'), hypercall.StatusMalformed},
		{"length above", true, edit(request(1, hypercall.CallStats, 10, senderPayload(7)), 16, 9), hypercall.StatusMalformed},
		{"length 2^32-1", true, edit(edit(edit(edit(request(1, hypercall.CallStats, 10, senderPayload(7)), 16, 255), 17, 255), 18, 255), 19, 255), hypercall.StatusMalformed},
		{"trailing bytes", true, append(request(1, hypercall.CallStats, 10, senderPayload(7)), 0), hypercall.StatusMalformed},
		{"status in a request", true, edit(request(1, hypercall.CallStats, 10, senderPayload(7)), 20, 1), hypercall.StatusMalformed},
		{"reserved bytes", true, request(1, hypercall.CallStats, 10, edit(senderPayload(7), 5, 1)), hypercall.StatusMalformed},
		{"stats with more", true, request(1, hypercall.CallStats, 10, senderPayload(7, 1)), hypercall.StatusMalformed},
		{"swap to half a hash", true, request(1, hypercall.CallSwap, 10, senderPayload(7, hash[:31]...)), hypercall.StatusMalformed},
		{"load of nothing", true, request(1, hypercall.CallLoad, 10, senderPayload(7)), hypercall.StatusMalformed},
		{"mode 0", true, request(1, hypercall.CallMode, 10, senderPayload(7, 0)), hypercall.StatusMalformed},
		{"mode 3", true, request(1, hypercall.CallMode, 10, senderPayload(7, 3)), hypercall.StatusMalformed},
		{"register nobody", true, request(1, hypercall.CallRegister, 10, make([]byte, 42)), hypercall.StatusMalformed},
		{"register a terminal escape", true, request(1, hypercall.CallRegister, 10, append(edit(make([]byte, 42), 40, 3), "\x1b[2"...)), hypercall.StatusMalformed},
		{"register name past the end", true, request(1, hypercall.CallRegister, 10, append(edit(make([]byte, 42), 40, 9), 'a')), hypercall.StatusMalformed},
		{"oversized", true, long, hypercall.StatusTooLarge},
		{"call 0", true, request(1, hypercall.CallInvalid, 10, nil), hypercall.StatusUnknownCall},
		{"call 8", true, request(1, hypercall.CallUnregister+1, 10, nil), hypercall.StatusUnknownCall},
		{"another version", true, request(2, hypercall.CallStats, 10, senderPayload(7)), hypercall.StatusVersion},
		{"no hello", false, request(1, hypercall.CallSwap, 10, senderPayload(7, hash...)), hypercall.StatusNoHello},
		{"no hello, version 0", false, request(0, hypercall.CallSwap, 10, senderPayload(7, hash...)), hypercall.StatusNoHello},
		{"wrong secret", false, request(0, hypercall.CallHello, 1, helloPayload(1, 1, other)), hypercall.StatusSecret},
		{"wrong secret later", true, request(0, hypercall.CallHello, 10, helloPayload(1, 1, other)), hypercall.StatusSecret},
		{"hello of the future", false, request(0, hypercall.CallHello, 1, helloPayload(2, 9, secret)), hypercall.StatusVersion},
		{"hello backwards", false, request(0, hypercall.CallHello, 1, helloPayload(2, 1, secret)), hypercall.StatusMalformed},
		{"hello version 0", false, request(0, hypercall.CallHello, 1, helloPayload(0, 1, secret)), hypercall.StatusMalformed},
		{"replay", true, request(1, hypercall.CallSwap, 5, senderPayload(7, hash...)), hypercall.StatusReplayed},
		{"older", true, request(1, hypercall.CallSwap, 4, senderPayload(7, hash...)), hypercall.StatusReplayed},
		{"replayed hello", true, request(0, hypercall.CallHello, 5, helloPayload(1, 1, secret)), hypercall.StatusReplayed},
		{"swap to what was not loaded", true, request(1, hypercall.CallSwap, 10, senderPayload(7, append(make([]byte, 32), byte(hypercall.ModeEnforce))...)), hypercall.StatusNotLoaded},
		{"swap to no mode", true, request(1, hypercall.CallSwap, 10, senderPayload(7, append(make([]byte, 32), 0)...)), hypercall.StatusMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend()
			b.staged[[32]byte(hash)] = true
			s := hypercall.NewServer(b, secret, 4096)
			if tt.opened {
				if st := status(t, s.Call(request(0, hypercall.CallHello, 5, helloPayload(1, 3, secret)))); st != hypercall.StatusOK {
					t.Fatalf("hello = %v", st)
				}
			}
			if got := status(t, s.Call(tt.req)); got != tt.want {
				t.Errorf("Call = %v; want %v", got, tt.want)
			}
			if d := cmp.Diff(map[hypercall.Status]uint64{tt.want: 1}, s.Refused()); d != "" {
				t.Errorf("Refused (-want +got):\n%s", d)
			}
			if b.inForce != ([32]byte{}) || len(b.calls) != 0 {
				t.Errorf("backend was asked: %q", b.calls)
			}
			// The channel is as it was.
			want := hypercall.StatusNoHello
			if tt.opened {
				want = hypercall.StatusOK
			}
			if got := status(t, s.Call(request(1, hypercall.CallStats, 99, senderPayload(7)))); got != want {
				t.Errorf("stats afterwards = %v; want %v", got, want)
			}
		})
	}
}

// TestNumberSpent: a number is good for one try even if the try fails, so that
// whoever listens cannot repeat it.
func TestNumberSpent(t *testing.T) {
	b := newBackend()
	s := hypercall.NewServer(b, secret, 0)
	s.Call(request(0, hypercall.CallHello, 1, helloPayload(1, 1, secret)))
	b.fail = errors.New("busy")
	req := request(1, hypercall.CallStats, 2, senderPayload(7))
	if got := status(t, s.Call(req)); got != hypercall.StatusRefused {
		t.Errorf("Call = %v; want %v", got, hypercall.StatusRefused)
	}
	b.fail = nil
	if got := status(t, s.Call(req)); got != hypercall.StatusReplayed {
		t.Errorf("again = %v; want %v", got, hypercall.StatusReplayed)
	}
}

// TestCopied writes to the request after the call: the backend's program must
// not change with it, or it could be changed after it was verified.
func TestCopied(t *testing.T) {
	b := newBackend()
	s := hypercall.NewServer(b, secret, 0)
	s.Call(request(0, hypercall.CallHello, 1, helloPayload(1, 1, secret)))
	req := request(1, hypercall.CallLoad, 2, senderPayload(7, []byte("program")...))
	if got := status(t, s.Call(req)); got != hypercall.StatusOK {
		t.Fatalf("load = %v", got)
	}
	clear(req)
	if string(b.program) != "program" {
		t.Errorf("program after the request was cleared: %q", b.program)
	}
}

// TestBackendError: what the backend says reaches the client, with its status.
func TestBackendError(t *testing.T) {
	b := newBackend()
	c := hypercall.NewClient(hypercall.Direct(hypercall.NewServer(b, secret, 0)))
	if err := c.Hello(secret); err != nil {
		t.Fatal(err)
	}
	b.fail = fmt.Errorf("sender 7: %w", &hypercall.Error{Status: hypercall.StatusBadProgram, Msg: "insn 3 (ret): why 9 of 2"})
	_, err := c.Load(7, []byte("x"))
	if !errors.Is(err, hypercall.ErrBadProgram) || !strings.Contains(err.Error(), "hypercall load: program refused: insn 3") {
		t.Errorf("Load = %v", err)
	}
	b.fail = &hypercall.Error{Status: hypercall.StatusOK, Msg: strings.Repeat("é", hypercall.MaxMessage)}
	err = c.Unregister(7)
	if !errors.Is(err, hypercall.ErrRefused) || len(err.Error()) > hypercall.MaxMessage+100 {
		t.Errorf("an error that says ok = %.60v, %d bytes; want refused", err, len(err.Error()))
	}
	if _, err := c.Load(7, make([]byte, hypercall.MaxProgram+1)); !errors.Is(err, hypercall.ErrTooLarge) {
		t.Errorf("Load of too much = %v", err)
	}
}

// TestClientDistrusts answers the client with what a server must not say.
func TestClientDistrusts(t *testing.T) {
	ok := func(call hypercall.Call, seq uint64, payload []byte) []byte {
		b := request(1, call, seq, payload)
		b[20] = byte(hypercall.StatusOK)
		return b
	}
	for name, answer := range map[string][]byte{
		"nothing":       nil,
		"another call":  ok(hypercall.CallSwap, 1, nil),
		"another seq":   ok(hypercall.CallStats, 2, nil),
		"empty stats":   ok(hypercall.CallStats, 1, nil),
		"never written": request(1, hypercall.CallStats, 1, nil),
		"too long":      make([]byte, hypercall.MaxAnswer+1),
		"2^32 reasons":  ok(hypercall.CallStats, 1, append(make([]byte, 84), 255, 255, 255, 255, 0, 0, 0, 0)),
	} {
		c := hypercall.NewClient(func([]byte) ([]byte, error) { return answer, nil })
		if st, err := c.Stats(7); err == nil {
			t.Errorf("%s: Stats = %+v; want an error", name, st)
		}
	}
}
