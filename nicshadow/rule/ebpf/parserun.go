package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A Parser is the strict parser in the kernel, by itself: what holds it against
// [frame.Parse].
type Parser struct {
	mu   sync.Mutex // mu guards work, which a run writes
	x    *Executor
	work *ebpf.Map
}

// envelope stands before the frame that the kernel is given: it makes no frame
// of fewer than 14 bytes, nor of an IP packet cut short.
var envelope = append(make([]byte, 12), 0x88, 0xb5)

// LoadParser has the kernel verify the parser.
func LoadParser() (*Parser, error) {
	c := &compiler{uses: map[int]int{}}
	c.at = []int{-1} // label 0 is none
	c.function(c.newLabel(), "parser")
	work := c.addMap(mapDef{typ: ebpf.Array, name: "work", key: 4, value: workLen, size: 1})
	c.broken = c.newLabel()
	c.add(asm.Mov.Reg(asm.R6, asm.R1))
	c.find1(work, 0, c.broken)
	c.add(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R0), asm.Mov.Imm(asm.R3, int32(len(envelope))))
	parse := c.newLabel()
	c.call(parse)
	c.add(asm.Return())
	c.place(c.broken)
	c.add(asm.Mov.Imm(asm.R0, int32(frame.Unparsed)), asm.Return())
	c.place(parse)
	entry := c.writeParser()
	c.at[parse] = c.at[entry]
	if err := c.resolve(); err != nil {
		return nil, err
	}
	x, err := c.code().Load()
	if err != nil {
		return nil, err
	}
	return &Parser{x: x, work: x.maps[work]}, nil
}

// Parse parses the frame b as [frame.Parse] does. The kernel takes some 3,000
// bytes.
func (p *Parser) Parse(b []byte, k *frame.Key) (frame.Reason, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.x.prog.Run(&ebpf.RunOptions{Data: append(envelope[:len(envelope):len(envelope)], b...)})
	if err != nil {
		return frame.Unparsed, fmt.Errorf("ebpf: %w", err)
	}
	if n == 0 || n >= uint32(frame.NumReasons) {
		return frame.Unparsed, errors.New("ebpf: the parser did not get its work")
	}
	v, err := p.work.LookupBytes(uint32(0))
	if err != nil {
		return frame.Unparsed, fmt.Errorf("ebpf: %w", err)
	}
	for i := range k.Words {
		k.Words[i] = binary.NativeEndian.Uint64(v[8*i:])
	}
	return frame.Reason(n), nil
}

// Repeat parses a frame n times in one call, and says how long each took.
func (p *Parser) Repeat(b []byte, n int) (time.Duration, error) {
	_, each, err := p.x.prog.Benchmark(append(envelope[:len(envelope):len(envelope)], b...), n, nil)
	return each, err
}

// Verified is that of [Executor].
func (p *Parser) Verified() (n int, ok bool) { return p.x.Verified() }

// Close gives the program and its map back.
func (p *Parser) Close() error { return p.x.Close() }
