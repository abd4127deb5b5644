package rule_test
import ("testing";"sekimori/nicshadow/frame";"time";"fmt")
//go:noinline
func nop(b []byte, k *frame.Key) frame.Reason { return frame.OK }
func BenchmarkEmpty(b *testing.B) {
	frames := mix()
	var k frame.Key
	i := 0
	for b.Loop() {
		nop(frames[i&(len(frames)-1)], &k)
		i++
	}
}
func TestTimes(t *testing.T) {
	p := benchProgram(t)
	frames := mix()
	keys := make([]frame.Key, len(frames))
	for i := range keys { frame.Parse(frames[i], &keys[i]) }
	var k frame.Key
	best := [4]time.Duration{1e9,1e9,1e9,1e9}
	for range 60 {
		t0 := time.Now()
		for range 10 { for _, f := range frames { nop(f, &k) } }
		t1 := time.Now()
		for range 10 { for _, f := range frames { frame.Parse(f, &k) } }
		t2 := time.Now()
		for range 10 { for i := range keys { sink = p.Run(&keys[i]) } }
		t3 := time.Now()
		for range 10 { for _, f := range frames { if frame.Parse(f, &k) == frame.OK { sink = p.Run(&k) } } }
		t4 := time.Now()
		for i, d := range []time.Duration{t1.Sub(t0), t2.Sub(t1), t3.Sub(t2), t4.Sub(t3)} { best[i] = min(best[i], d) }
	}
	for i := range best { fmt.Printf("%.2f ", float64(best[i])/40960) }
	fmt.Println()
}
