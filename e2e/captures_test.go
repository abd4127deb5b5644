package e2e_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

var update = flag.Bool("update", false, "write the captures of testdata/pcap")

const captureDir = "../testdata/pcap"

// maxCapture bounds a capture: they are fixtures, not archives.
const maxCapture = 50 << 10

// A capture is a file of testdata/pcap: all of it is sent by mallory.
type capture struct {
	name   string
	what   string
	frames []variant
}

func captures() []capture {
	arp, ip, ndp := arpVariants(), ipVariants(), ndpVariants()
	// arpspoof -i eth0 -t ALICE BOB: one answer every two seconds.
	spoof := slices.Repeat(arp[:1], 5)
	return []capture{
		{"arpspoof.pcap", "what dsniff's arpspoof sends when mallory tells alice that she is bob", spoof},
		{"arp_lies.pcap", "every lie in ARP, one frame each", arp},
		{"ip_lies.pcap", "forged sources, stolen cards, DHCP servers", ip},
		{"ndp_lies.pcap", "every lie in IPv6 neighbour discovery, one frame each", ndp},
		{"honest.pcap", "what mallory's kernel sends in an honest day", honestVariants()},
	}
}

// encode writes the classic pcap format, a frame every two seconds from a
// fixed moment on, so that the same frames give the same bytes.
func (c capture) encode() ([]byte, error) {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		return nil, err
	}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, v := range c.frames {
		err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(v.frame), Length: len(v.frame)}, v.frame)
		if err != nil {
			return nil, err
		}
		at = at.Add(2 * time.Second)
	}
	return b.Bytes(), nil
}

// index lists the frames of all captures, for whoever writes a test with them.
func index() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "The captures, written by: go test ./e2e -run TestCaptures -update\n\n")
	for _, h := range []host{alice, bob, mallory} {
		fmt.Fprintf(&b, "%-8s %x %v %v %v\n", h.name, h.mac, h.ip4, h.ip6, h.local6)
	}
	fmt.Fprintf(&b, "\nMallory sends all frames. Behind each name stands what drops it under the\ndefault guards and a policy that allows everything; nothing where it is honest.\n")
	for _, c := range captures() {
		fmt.Fprintf(&b, "\n%s: %s\n", c.name, c.what)
		for i, v := range c.frames {
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%4d  %-28s %s", i+1, v.name, v.reason), " "))
		}
	}
	return []byte(b.String())
}

// TestCaptures holds the files of testdata/pcap equal to the frames of this
// package.
func TestCaptures(t *testing.T) {
	files := map[string][]byte{"README": index()}
	for _, c := range captures() {
		b, err := c.encode()
		if err != nil {
			t.Fatal(c.name, err)
		}
		files[c.name] = b
	}
	for name, want := range files {
		path := filepath.Join(captureDir, name)
		if len(want) > maxCapture {
			t.Errorf("%s: %d bytes, more than %d", name, len(want), maxCapture)
		}
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Error(err)
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(have, want) {
			t.Errorf("%s is not what this package sends: run with -update", path)
		}
	}
}
