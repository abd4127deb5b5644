package p9_test

import (
	"fmt"
	"os"
	"testing"

	"sekimori/lifecycle/agent/p9"
)

// BenchmarkRead reads a file of 64 MiB in pieces as large as a message takes,
// one request after the other, over a socket pair. "file" is the same without
// 9P: what there is to lose.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	data := make([]byte, 64<<20)
	if err := os.WriteFile(dir+"/big", data, 0o644); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{64 << 10, 128 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("msize=%dK", size>>10), func(b *testing.B) {
			s := newServer(b, p9.Config{Exports: map[string]*p9.Export{"": export(b, dir, p9.Options{})}})
			c, _ := connect(b, s)
			c.version(uint32(size))
			c.must(tAttach, root, uint32(noFid), "root", "", 0)
			fid, err := c.open("big", 0)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for off := 0; off < len(data); {
					c.send(tRead, 1, msg(fid, uint64(off), size-24))
					_, _, payload := c.recv()
					off += len(payload) - 4
				}
			}
		})
	}
	b.Run("file", func(b *testing.B) {
		f, err := os.Open(dir + "/big")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 128<<10)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for off := 0; off < len(data); off += len(buf) {
				if _, err := f.ReadAt(buf, int64(off)); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkTree lists a directory of 1,000 files and asks for each of them what
// "ls -l" asks: walk, getattr, clunk.
func BenchmarkTree(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		write(b, fmt.Sprintf("%s/file%d", dir, i), "")
	}
	c := dial(b, dir, p9.Options{})
	for b.Loop() {
		all, err := c.list("/", msize-24)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range all {
			if e.name == "." || e.name == ".." {
				continue
			}
			c.must(tWalk, root, 50, uint16(1), e.name)
			c.must(tGetattr, 50, uint64(0x7ff))
			c.must(tClunk, 50)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/3000, "µs/request")
}
