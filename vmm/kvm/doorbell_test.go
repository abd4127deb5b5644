package kvm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sekimori/vmm/hypercall/doorbell"
)

func length(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// TestLine: a request is whole, from one address space, and bounded, or it is none.
func TestLine(t *testing.T) {
	mine, other := &Regs{CR3: 0x1234_5000}, &Regs{CR3: 0x9999_0000}
	user := &Regs{CR3: 0x1234_4803 | 1<<63} // the same process by its other tables, with another context
	mine.CR3 = 0x1234_4000
	for _, tt := range []struct {
		name string
		do   func(l *line)
		want string // the request that is answered; "" for none
	}{
		{"a word", func(l *line) { l.out(mine, doorbell.Port, length(4)); l.out(mine, doorbell.Data, []byte("abcd")) }, "abcd"},
		{"several", func(l *line) {
			l.out(mine, doorbell.Port, length(10))
			l.out(mine, doorbell.Data, []byte("abcd"))
			l.out(user, doorbell.Data, []byte("efghij\x00\x00"))
		}, "abcdefghij"},
		{"too short", func(l *line) { l.out(mine, doorbell.Port, length(5)); l.out(mine, doorbell.Data, []byte("abcd")) }, ""},
		{"too long", func(l *line) { l.out(mine, doorbell.Port, length(3)); l.out(mine, doorbell.Data, []byte("abcdefgh")) }, ""},
		{"never begun", func(l *line) { l.out(mine, doorbell.Data, []byte("abcd")) }, ""},
		{"of nothing", func(l *line) { l.out(mine, doorbell.Port, length(0)); l.out(mine, doorbell.Data, make([]byte, 4)) }, ""},
		{"of 4 GiB", func(l *line) {
			l.out(mine, doorbell.Port, length(^uint32(0)))
			l.out(mine, doorbell.Data, []byte("abc"))
		}, ""},
		{"somebody else's bytes", func(l *line) {
			l.out(mine, doorbell.Port, length(8))
			l.out(mine, doorbell.Data, []byte("abcd"))
			l.out(other, doorbell.Data, []byte("efgh"))
			l.out(mine, doorbell.Data, []byte("efgh"))
		}, ""},
		{"begun anew", func(l *line) {
			l.out(mine, doorbell.Port, length(30))
			l.out(mine, doorbell.Data, []byte("abcd"))
			l.out(mine, doorbell.Port, length(1))
			l.out(mine, doorbell.Data, []byte("x\x00\x00\x00"))
		}, "x"},
	} {
		asked := ""
		l := &line{serve: func(r *Regs, b []byte) []byte { asked = string(b); return append([]byte("re: "), b...) }}
		tt.do(l)
		n, b := make([]byte, 4), make([]byte, 16)
		l.in(mine, doorbell.Port, n)
		l.in(mine, doorbell.Data, b)
		if asked != tt.want {
			t.Errorf("%s: asked %q; want %q", tt.name, asked, tt.want)
		}
		if tt.want == "" {
			if !bytes.Equal(n, length(^uint32(0))) || !bytes.Equal(b, bytes.Repeat([]byte{0xff}, len(b))) {
				t.Errorf("%s: answered % x, % x", tt.name, n, b)
			}
			continue
		}
		if want := "re: " + tt.want; !bytes.Equal(n, length(uint32(len(want)))) || string(b[:len(want)]) != want || b[len(want)] != 0xff {
			t.Errorf("%s: answered % x, %q", tt.name, n, b)
		}
		if l.in(other, doorbell.Port, n); !bytes.Equal(n, length(^uint32(0))) {
			t.Errorf("%s: another process reads the answer's length: % x", tt.name, n)
		}
	}
}

// TestNoAnswer: a refusal without a word, and an answer that is too long, are none.
func TestNoAnswer(t *testing.T) {
	for _, answer := range [][]byte{nil, make([]byte, doorbell.MaxAnswer+1)} {
		l := &line{serve: func(*Regs, []byte) []byte { return answer }}
		l.out(&Regs{}, doorbell.Port, length(1))
		l.out(&Regs{}, doorbell.Data, []byte("xxxx"))
		n := make([]byte, 4)
		if l.in(&Regs{}, doorbell.Port, n); !bytes.Equal(n, length(^uint32(0))) {
			t.Errorf("answered % x", n)
		}
	}
}
