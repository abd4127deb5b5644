package starlark_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sekimori/starlark"
)

// TestErrors loads each chunk of the files in testdata/errors. A chunk is a
// file of its own, set apart from the next by a line "---"; `### "regexp"` at
// the end of a line says that an error with its position on that line, and
// whose text with the hint matches, is reported, and there is no other.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.star")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/errors: %d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line := 1
		for chunk := range bytes.SplitSeq(data, []byte("\n---\n")) {
			name := fmt.Sprintf("%s/line%d", filepath.Base(file), line)
			first := line
			line += bytes.Count(chunk, []byte("\n")) + 2
			t.Run(name, func(t *testing.T) { checkChunk(t, chunk, first) })
		}
	}
}

var wantRE = regexp.MustCompile("###((?: (?:\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`))+)$")
var quotedRE = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")

func checkChunk(t *testing.T, chunk []byte, first int) {
	want := map[int][]*regexp.Regexp{}
	for i, l := range strings.Split(string(chunk), "\n") {
		m := wantRE.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		for _, q := range quotedRE.FindAllString(m[1], -1) {
			pattern, err := strconv.Unquote(q)
			if err != nil {
				t.Fatalf("line %d: %v", first+i, err)
			}
			want[i+1] = append(want[i+1], regexp.MustCompile(pattern))
		}
	}
	path := filepath.Join(t.TempDir(), "chunk.star")
	if err := os.WriteFile(path, chunk, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := starlark.Load(context.Background(), path, starlark.Options{})
	for _, e := range starlark.Errors(err) {
		line := int(e.Pos.Line)
		matched := false
		for i, re := range want[line] {
			if re.MatchString(strings.ReplaceAll(e.Error(), "\n", " ")) {
				want[line] = append(want[line][:i:i], want[line][i+1:]...)
				matched = true
				break
			}
		}
		if !matched {
			t.Errorf("line %d: unexpected error: %+v", first+line-1, e)
		}
	}
	for line, res := range want {
		for _, re := range res {
			t.Errorf("line %d: no error matches %q", first+line-1, re)
		}
	}
}
