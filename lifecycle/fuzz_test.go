package lifecycle_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"sekimori/lifecycle"
)

// FuzzDecodeRequest: whatever is accepted is complete for its verb, and means
// the same when it is written down and read again.
func FuzzDecodeRequest(f *testing.F) {
	for _, seed := range []string{
		`{"verb":"ping"}`,
		`{"verb":"stats","container":"web"}`,
		`{"verb":"signal","container":"web","signal":15}`,
		`{"verb":"mode","mode":"audit"}`,
		`{"verb":"stop","timeout_ms":10000}`,
		`{"verb":"exec","container":"web","exec":{"args":["/bin/sh","-c","true"],"env":["A=b"],"cwd":"/","user":"0:0","terminal":true}}`,
		`{"verb":"exec","exec":{"args":[]}}`,
		`{"verb":"exec","exec":{"args":["\u0000"]}}`,
		`{"verb":"ping"} {"verb":"kill"}`,
		`{"VERB":"ping","signal":1e3}`,
		`[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := lifecycle.DecodeRequest(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("accepted request cannot be written: %v", err)
		}
		r2, err := lifecycle.DecodeRequest(again)
		if err != nil || !reflect.DeepEqual(normal(r), normal(r2)) {
			t.Errorf("%s reads as %+v, %v; want %+v", again, r2, err, r)
		}
		if strings.Contains(string(again), `\u0000`) && strings.Contains(string(again), `"exec"`) && strings.Contains(string(again), `"args":["\u0000`) {
			t.Errorf("accepted an argument with a zero byte: %s", again)
		}
	})
}

// normal makes empty and missing lists the same.
func normal(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// FuzzLogLines: the log says exactly what was written, however it was cut into
// chunks.
func FuzzLogLines(f *testing.F) {
	f.Add("a\nb\n", 1)
	f.Add(strings.Repeat("x", 40_000)+"\n\n", 7)
	f.Add("no end", 3)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		s = strings.ToValidUTF8(strings.ReplaceAll(s, "\r", ""), "")
		if len(s) > 1<<17 {
			return
		}
		cut = max(1, cut&0xffff)
		var chunks []string
		for rest := s; rest != ""; {
			n := min(cut, len(rest))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		var got strings.Builder
		partial := false
		for line := range strings.Lines(lifecycle.LogLines(chunks...)) {
			var r lifecycle.LogRecord
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if len(r.Line) > 16<<10 {
				t.Errorf("a line of %d bytes", len(r.Line))
			}
			got.WriteString(r.Line)
			if partial = r.Partial; !partial {
				got.WriteByte('\n')
			}
		}
		want := s
		if s != "" && !strings.HasSuffix(s, "\n") {
			want += "\n"
		}
		if !strings.Contains(s, "�") && len(s) < 16<<10 && got.String() != want {
			t.Errorf("log of %q in chunks of %d: %q", s, cut, got.String())
		}
	})
}
