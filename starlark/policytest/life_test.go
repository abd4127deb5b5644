package policytest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sekimori/starlark/policytest"
)

func TestLife(t *testing.T) {
	r := run(t, policytest.Options{}, "testdata/life_test.star")
	if r.ExitCode() != 0 {
		t.Error(text(t, r, false))
	}
	got := text(t, r, true)
	for _, w := range []string{
		"test_cases/tcp (1 frames", "test_cases/two_words", "test_cases/1", "test_cases/inside", "ok    testdata/life_test.star: 14 tests",
		"    | web: callback broken at signal:USR2: ",
	} {
		if !strings.Contains(got, w) {
			t.Errorf("text has no %q:\n%s", w, got)
		}
	}
}

func TestLifeFails(t *testing.T) {
	want := map[string]string{
		"test_which_container":          `t.emit: there are several containers: web, db`,
		"test_no_such_point":            `unknown point "redy" \(did you mean "ready"\?\)`,
		"test_no_time_by_emit":          `time passes by t.advance`,
		"test_callback_fails":           `signal:HUP of "web": callback broken at signal:HUP: .*no reason`,
		"test_callback_fails_otherwise": `want an error with "another reason"`,
		"test_callback_does_not_fail":   `no callback failed, want an error with "no reason"`,
		"test_too_many_timers":          `more than 10000 timers`,
		"test_a_case/a":                 `got forward, want drop`,
		"test_a_case/b":                 `got forward, want drop`,
		"test_a_case/c":                 `dst_port: want an integer`,
		"test_case_without_function":    `t.cases: fn: want a function`,
	}
	r := run(t, policytest.Options{}, "testdata/lifefails_test.star")
	for _, top := range r.Files[0].Tests {
		for _, test := range append([]*policytest.TestReport{top}, top.Inside...) {
			re, ok := want[test.Name]
			if !ok {
				if !test.Passed {
					t.Errorf("%s failed: %+v", test.Name, test.Failures)
				}
				continue
			}
			delete(want, test.Name)
			if test.Passed || !regexp.MustCompile(re).MatchString(test.Failures[0].Message) {
				t.Errorf("%s: %+v; want %s", test.Name, test.Failures, re)
			}
		}
	}
	for name := range want {
		t.Errorf("%s did not run", name)
	}
	if !r.Failed() {
		t.Error("Failed = false")
	}
}

// --run reaches into the cases of a test.
func TestSelectInside(t *testing.T) {
	r := run(t, policytest.Options{Run: selector(t, "^test_cases$/^tcp$")}, "testdata/life_test.star")
	if len(r.Files[0].Tests) != 1 || len(r.Files[0].Tests[0].Inside) != 1 || r.Files[0].Tests[0].Inside[0].Name != "test_cases/tcp" {
		t.Errorf("tests = %+v", r.Files[0].Tests)
	}
	if _, err := policytest.ParseSelector("a/("); err == nil {
		t.Error("a bad regular expression: no error")
	}
}

// Golden verdicts: missing, written, equal, changed, and not to be led astray.
func TestGolden(t *testing.T) {
	dir := t.TempDir()
	write := func(name, s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	policyFile := "def allow_arp(dst_ip):\n    return dst_ip == ip(\"10.0.0.1\")\n\nP = policy(allow_arp)\n"
	write("p.star", policyFile)
	write("p_test.star", `
load("p.star", "P")
FRAMES = [arp(), arp(dst_ip = "10.0.0.9"), tcp(), tcp(src_ip = "10.0.0.9"), raw("00")]
def test_golden(t):
    t.golden(P, FRAMES, "golden/p.txt")
`)
	check := func(update bool, want string) {
		t.Helper()
		r := run(t, policytest.Options{Update: update}, dir)
		if got := text(t, r, false); want == "" && r.Failed() || !strings.Contains(got, want) {
			t.Errorf("update %v: got\n%s\nwant %q", update, got, want)
		}
	}
	check(false, "not there: seki test --update writes it")
	check(true, "")
	check(false, "")
	written, err := os.ReadFile(filepath.Join(dir, "golden/p.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"# ", `1 forward | predicate allow_arp | return dst_ip == ip("10.0.0.1") | arp request`, "2 drop | predicate allow_arp", "3 drop | unspoken ipv4", "4 drop | guard ip", "5 drop | the parser (truncated)"} {
		if got := strings.Split(string(written), "\n")[i]; !strings.HasPrefix(got, want) {
			t.Errorf("line %d = %q; want %q", i, got, want)
		}
	}
	// A line above changes nothing, another verdict does.
	write("p.star", "# a comment\n"+policyFile)
	check(false, "")
	write("p.star", strings.Replace(policyFile, "10.0.0.1", "10.0.0.9", 1))
	check(false, "line 2 differs")
	write("p_test.star", "load(\"p.star\", \"P\")\ndef test_golden(t):\n    t.golden(P, tcp(), \"../p.txt\")\n")
	check(true, "leaves the directory")
}
