package nicshadow

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/replay"
)

// Limits of a capture, where its configuration does not set them.
const (
	DefaultCaptureSize = 16 << 20 // bytes in both files
	DefaultCaptureRate = 5000     // frames a second for each sender
	captureQueue       = 256
	// captureSnap is how much of a frame is kept: all of it at an MTU of 1500.
	captureSnap = 2048
)

// A CaptureConfig configures a [Capture].
type CaptureConfig struct {
	// Path is the pcapng file. When it holds half of Size it is renamed to
	// Path + ".old", over the one before, and begun anew.
	Path string
	// File is written to instead, where Path is empty; it is not begun anew:
	// when Size is reached, what comes is counted as missed. The capture closes
	// it.
	File *os.File
	// Size bounds both files together, in bytes; 0 means DefaultCaptureSize.
	Size int64
	// Rate bounds the frames a second of each sender; 0 means
	// DefaultCaptureRate. It bounds what a flood takes from the other senders.
	Rate int
	// Record says that it is for every judged frame, not for drops: the comment
	// is then a [RecordNote] for a program to read.
	Record bool
}

// A Capture writes frames that dropped, or would have, to a pcapng file: an
// interface for each container, and why as the packet's comment. The frame path
// copies into a free buffer; if there is none, the frame is counted as missed.
type Capture struct {
	cfg    CaptureConfig
	queue  chan *captured
	free   chan *captured
	missed atomic.Uint64
	failed atomic.Pointer[error]

	// mu guards closed: nothing is sent on queue afterwards.
	mu     sync.RWMutex
	closed bool
	done   sync.WaitGroup

	// The writing goroutine's own.
	file *os.File
	buf  *bufio.Writer
	ng   *replay.Writer
}

// A captured frame waits to be written, then its buffer is free again.
type captured struct {
	at        time.Time
	container string
	judgement Judgement
	ingress   bool
	length    int
	data      [captureSnap]byte
}

// NewCapture opens the file and returns the capture; [Capture.Close] ends it.
func NewCapture(cfg CaptureConfig) (*Capture, error) {
	if cfg.Size <= 0 {
		cfg.Size = DefaultCaptureSize
	}
	if cfg.Rate <= 0 {
		cfg.Rate = DefaultCaptureRate
	}
	c := &Capture{cfg: cfg, queue: make(chan *captured, captureQueue), free: make(chan *captured, captureQueue)}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	for range captureQueue {
		c.free <- new(captured)
	}
	c.done.Go(c.write)
	return c, nil
}

// Missed returns how many frames were not captured: over the rate, or because
// the disk was slow.
func (c *Capture) Missed() uint64 { return c.missed.Load() }

// Close writes the frames that wait and closes the file. The error is the
// first one of the file.
func (c *Capture) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.queue)
	}
	c.mu.Unlock()
	c.done.Wait()
	if err := c.failed.Load(); err != nil {
		return fmt.Errorf("capture: %w", *err)
	}
	return nil
}

// A CaptureSource is one sender's end of a capture.
type CaptureSource struct {
	capture   *Capture
	container string
	bucket    bucket
}

// Source returns the end for a container's frames. It is for one goroutine at
// a time.
func (c *Capture) Source(container string) *CaptureSource {
	return &CaptureSource{capture: c, container: container, bucket: newBucket(c.cfg.Rate, c.cfg.Rate)}
}

// Offer captures a frame. It does not wait, and keeps neither b nor j.
func (s *CaptureSource) Offer(b []byte, j *Judgement) { s.offer(s.container, b, j, false) }

// offer is Offer of a frame for another container, which is on its way there.
func (s *CaptureSource) offer(container string, b []byte, j *Judgement, ingress bool) {
	c, now := s.capture, time.Now()
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return
	}
	if !s.bucket.allow(now) {
		c.missed.Add(1)
		return
	}
	select {
	case f := <-c.free:
		f.at, f.container, f.judgement, f.length, f.ingress = now, container, *j, len(b), ingress
		copy(f.data[:], b)
		c.queue <- f // never full: there are as many frames as places
	default:
		c.missed.Add(1)
	}
}

// write writes frames. It ends when the queue is closed. After an error, a
// full disk most likely, it goes on emptying the queue and writes no more.
func (c *Capture) write() {
	for f := range c.queue {
		if c.failed.Load() == nil {
			c.one(f)
			if len(c.queue) == 0 {
				c.fail(c.buf.Flush()) // whoever reads along sees it at once
			}
		}
		c.free <- f
	}
	if c.failed.Load() == nil {
		c.fail(c.buf.Flush())
	}
	c.fail(c.file.Close())
}

func (c *Capture) fail(err error) {
	if err != nil {
		c.failed.CompareAndSwap(nil, &err)
	}
}

// one writes one frame, behind its interface if that is new.
func (c *Capture) one(f *captured) {
	if c.cfg.File != nil {
		if c.ng.Bytes() >= c.cfg.Size {
			c.missed.Add(1)
			return
		}
	} else if c.ng.Bytes() >= c.cfg.Size/2 {
		if err := c.rotate(); err != nil {
			c.fail(err)
			return
		}
	}
	b := f.data[:min(f.length, captureSnap)]
	text := ""
	if c.cfg.Record {
		text = f.note().String()
	} else {
		text = comment(f, b)
	}
	c.ng.Packet(f.container, f.at, b, f.length, text)
	c.fail(c.ng.Err())
}

// comment is one line: the verdict, the reason, where it was decided.
func comment(f *captured, b []byte) string {
	r := newRecord(f.container, f.at, &f.judgement)
	if f.judgement.Reason == Allowed {
		return allowed(f, b)
	}
	s := r.Verdict + ": " + r.Reason
	if r.Why != "" {
		s += ": " + r.Kind + " " + r.Why
	}
	if p := r.Position(); p != "" {
		s += " at " + p
	}
	if r.Cause != "" {
		s += ": " + r.Cause
	}
	return s + ": " + brief.Frame(&f.judgement.Key, b, f.length)
}

// allowed is the comment of a frame that a program forwards.
func allowed(f *captured, b []byte) string {
	s := "forward"
	if p := f.judgement.Program; p != nil {
		k := Deciding(p, f.judgement.Outcome.PC)
		s = fmt.Sprintf("forward: %s %s at %s:%d:%d", k.Kind, k.Why, k.File, k.Line, k.Col)
	}
	return s + ": " + brief.Frame(&f.judgement.Key, b, f.length)
}

// rotate renames the full file and begins a new one.
func (c *Capture) rotate() error {
	if err := c.buf.Flush(); err != nil {
		return err
	}
	if err := c.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(c.cfg.Path, c.cfg.Path+".old"); err != nil {
		return err
	}
	return c.open()
}

// open begins a file, readable by its owner alone: it holds what containers
// sent.
func (c *Capture) open() error {
	if c.cfg.File != nil {
		return c.begin(c.cfg.File)
	}
	f, err := os.OpenFile(c.cfg.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return c.begin(f)
}

func (c *Capture) begin(f *os.File) error {
	c.file, c.buf = f, bufio.NewWriterSize(f, 64<<10)
	c.ng = replay.NewWriter(c.buf)
	if err := c.ng.Err(); err != nil {
		return err
	}
	if c.cfg.File == nil {
		return nil
	}
	return c.buf.Flush() // whoever began it sees that it has begun
}
