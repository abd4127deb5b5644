package policy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"sekimori/nicshadow/rule"
	"sekimori/starlark/policy"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// chunks calls f for each part of a file between lines of "---". The text is
// padded with empty lines, so that positions are those of the whole file.
func chunks(t *testing.T, file string, f func(t *testing.T, src string)) {
	t.Helper()
	b, err := os.ReadFile("../../testdata/policy/" + file)
	if err != nil {
		t.Fatal(err)
	}
	line := 1
	for part := range strings.SplitSeq(string(b), "\n---\n") {
		t.Run(fmt.Sprintf("line%d", line), func(t *testing.T) { f(t, strings.Repeat("\n", line-1)+part) })
		line += strings.Count(part, "\n") + 2
	}
}

var wanted = regexp.MustCompile(`### "((?:[^"\\]|\\.)*)"`)

// TestErrors compiles the chunks of errors.star and compares each error with
// the pattern on its line.
func TestErrors(t *testing.T) {
	chunks(t, "errors.star", func(t *testing.T, src string) {
		want := make(map[int]string)
		for i, line := range strings.Split(src, "\n") {
			if m := wanted.FindStringSubmatch(line); m != nil {
				want[i+1] = strings.ReplaceAll(m[1], `\"`, `"`)
			}
		}
		for _, e := range errorsOf(src) {
			line, msg := e.line, e.msg
			pattern, ok := want[line]
			if !ok {
				t.Errorf("line %d: unexpected error: %s", line, msg)
				continue
			}
			if !regexp.MustCompile(pattern).MatchString(msg) {
				t.Errorf("line %d: error %q; want %q", line, msg, pattern)
			}
			delete(want, line)
		}
		for line, pattern := range want {
			t.Errorf("line %d: no error; want %q", line, pattern)
		}
	})
}

type lineError struct {
	line int
	msg  string
}

// errorsOf runs and compiles a file and lists what is wrong with it.
func errorsOf(src string) []lineError {
	g, err := exec(src)
	if err == nil {
		p, ok := g["P"].(*policy.Policy)
		if !ok {
			return nil
		}
		_, err = p.Compile(identity)
	}
	return split(err)
}

func split(err error) []lineError {
	var joined interface{ Unwrap() []error }
	var mistake *policy.Error
	var eval *starlark.EvalError
	var unresolved resolve.ErrorList
	var syntactic syntax.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &joined):
		var out []lineError
		for _, e := range joined.Unwrap() {
			out = append(out, split(e)...)
		}
		return out
	case errors.As(err, &mistake):
		return []lineError{{int(mistake.Pos.Line), err.Error()}}
	case errors.As(err, &eval):
		for _, f := range eval.CallStack {
			if f.Pos.Line > 0 {
				return []lineError{{int(f.Pos.Line), eval.Msg}}
			}
		}
	case errors.As(err, &unresolved):
		return []lineError{{int(unresolved[0].Pos.Line), unresolved[0].Msg}}
	case errors.As(err, &syntactic):
		return []lineError{{int(syntactic.Pos.Line), syntactic.Msg}}
	}
	return []lineError{{0, err.Error()}}
}

// TestGood compiles the chunks of good.star and compares them with the
// interpreter.
func TestGood(t *testing.T) {
	chunks(t, "good.star", func(t *testing.T, src string) {
		p, prog := compile(t, src)
		r := rand.New(rand.NewPCG(1, 2))
		forwarded, dropped := 0, 0
		for range 3000 {
			forward, why := agree(t, src, p, prog, randomKey(r))
			switch {
			case forward:
				forwarded++
			case why.Kind == rule.WhyPredicate:
				dropped++
			}
		}
		if forwarded == 0 || dropped == 0 {
			t.Errorf("%d frames forwarded, %d dropped by a predicate: the frames do not reach the point", forwarded, dropped)
		}
		if prog.Len() > 1000 {
			t.Errorf("%d instructions; want fewer than 1000", prog.Len())
		}
	})
}
