package policytest_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"sekimori/starlark/policytest"
)

func run(t *testing.T, opts policytest.Options, paths ...string) *policytest.Report {
	t.Helper()
	report, err := policytest.Run(t.Context(), paths, opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func selector(t *testing.T, pattern string) policytest.Selector {
	t.Helper()
	s, err := policytest.ParseSelector(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func text(t *testing.T, r *policytest.Report, verbose bool) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, verbose); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A test that must fail fails, and says why: message and details of the first
// failure match the regular expression.
func TestFailuresFail(t *testing.T) {
	want := map[string]string{
		"test_forward_is_no_drop":      `^testdata/fails_test.star:9:12: arp\(dst_ip = 10.0.0.1\): got forward, want drop, decided at testdata/fails_test.star:4:(?s:.*)return dst_ip == ip\("10.0.0.1"\)`,
		"test_drop_is_no_forward":      `^testdata/fails_test.star:12:15: arp\(dst_ip = 10.0.0.9\): got drop, want forward, decided at testdata/fails_test.star:4:(?s:.*)arp.tpa +10.0.0.9`,
		"test_other_line":              `got drop by the line "return dst_ip == ip\(\\"10.0.0.1\\"\)", want one with "no such text"`,
		"test_other_guard":             `got drop by guard ip, want the guard "mac"`,
		"test_guard_is_no_predicate":   `got drop by predicate allow_tcp, want the guard "ip"`,
		"test_other_why":               `got drop by unspoken udp, want "allow_udp"`,
		"test_parser_is_no_line":       `got drop by the line "", want one with "dst_ip"(?s:.*)malformed arp`,
		"test_equal":                   `^testdata/fails_test.star:\d+:12: got 1, want 2`,
		"test_equal_types":             `write ip\("10.0.0.1"\)`,
		"test_fail":                    `as asked`,
		"test_error":                   `^testdata/fails_test.star:\d+:14: floored division by zero`,
		"test_unknown_method":          `t has no .dorps field or method \(did you mean .drops\?\)`,
		"test_unknown_argument":        `t.drops: unknown argument "lin" \(did you mean "line"\?\)`,
		"test_wrong_types":             `t.drops: policy: want a policy or a container, got string "policy"`,
		"test_no_frame":                `t.drops: frame: want a frame, got bytes`,
		"test_second_of_two":           `arp\(dst_ip = 10.0.0.9\): got drop, want forward`,
		"test_in_a_helper":             `got drop, want forward`,
		"test_no_card_of_that_version": `the sender has no address of the IP version`,
		"test_nic_is_the_test_s_own":   `got drop, want forward(?s:.*)guard ip`,
		"test_bad_policy":              `^testdata/fails_test.star:\d+:\d+: allow_arp: `,
		"test_endless":                 `evaluation stopped: more than 100000 steps`,
		"test_many_failures":           `failure 0`,
	}
	r := run(t, policytest.Options{MaxSteps: 100_000}, "testdata/fails_test.star")
	if !r.Failed() || r.Unloadable() || r.ExitCode() != 3 {
		t.Errorf("Failed, Unloadable, ExitCode = %v, %v, %d; want true, false, 3", r.Failed(), r.Unloadable(), r.ExitCode())
	}
	seen := map[string]bool{}
	for _, test := range r.Files[0].Tests {
		seen[test.Name] = true
		re, ok := want[test.Name]
		if !ok {
			t.Errorf("%s: unexpected test", test.Name)
			continue
		}
		if test.Passed || len(test.Failures) == 0 {
			t.Errorf("%s passed", test.Name)
			continue
		}
		f := test.Failures[0]
		if got := f.Pos + ": " + f.Message + "\n" + f.Details; !regexp.MustCompile(re).MatchString(got) {
			t.Errorf("%s: got %s\nwant %s", test.Name, got, re)
		}
		switch test.Name {
		case "test_second_of_two", "test_drop_is_no_forward":
			if len(test.Failures) != 1 {
				t.Errorf("%s: %d failures; want 1", test.Name, len(test.Failures))
			}
		case "test_many_failures":
			if len(test.Failures) != 20 || test.More != 30 {
				t.Errorf("%s: %d failures and %d more; want 20 and 30", test.Name, len(test.Failures), test.More)
			}
		case "test_in_a_helper":
			if got := strings.Join(f.Stack, " "); !strings.Contains(got, "in test_in_a_helper") || !strings.Contains(got, "in helper") {
				t.Errorf("%s: stack %s", test.Name, got)
			}
		case "test_error":
			if len(test.Output) != 1 || test.Output[0] != "before" {
				t.Errorf("%s: output %q", test.Name, test.Output)
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s did not run", name)
		}
	}
	for _, w := range []string{"FAIL  test_equal (0 frames", "    | before\n", "and 30 more", "FAIL  testdata/fails_test.star: 22 of 22 tests"} {
		if got := text(t, r, false); !strings.Contains(got, w) {
			t.Errorf("text has no %q:\n%s", w, got)
		}
	}
}

func TestPasses(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true}, "testdata/passes_test.star")
	if got := text(t, r, true); r.ExitCode() != 0 || len(r.Files[0].Tests) != 6 {
		t.Fatalf("%d tests, exit code %d:\n%s", len(r.Files[0].Tests), r.ExitCode(), got)
	}
	verdicts := r.Files[0].Tests[0]
	if verdicts.Name != "test_verdicts" || verdicts.Frames != 9 || len(verdicts.Programs) != 1 || len(verdicts.Programs[0]) != 64 {
		t.Errorf("first test = %+v", verdicts)
	}
	if len(r.Coverage) != 1 || r.Coverage[0].Branches == 0 || r.Coverage[0].Covered == 0 {
		t.Errorf("coverage = %+v", r.Coverage)
	}
}

// Coverage names what no frame reached.
func TestCoverage(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true, Run: selector(t, "no_such_test|other_guard")}, "testdata/fails_test.star")
	if len(r.Coverage) != 1 || r.Coverage[0].Covered >= r.Coverage[0].Branches || len(r.Coverage[0].Missing) == 0 {
		t.Errorf("coverage = %+v; want lines missing", r.Coverage)
	}
}

func TestSelect(t *testing.T) {
	r := run(t, policytest.Options{Run: selector(t, "^test_(cards|frozen)$")}, "testdata/passes_test.star")
	if len(r.Files[0].Tests) != 2 || r.ExitCode() != 0 {
		t.Errorf("%d tests, exit code %d", len(r.Files[0].Tests), r.ExitCode())
	}
}

func TestUnloadable(t *testing.T) {
	r := run(t, policytest.Options{}, "testdata/broken_test.star", "testdata/fails_test.star")
	if !r.Unloadable() || r.ExitCode() != 2 {
		t.Errorf("Unloadable, ExitCode = %v, %d; want true, 2", r.Unloadable(), r.ExitCode())
	}
	if got := text(t, r, false); !strings.Contains(got, "ERROR testdata/broken_test.star\n    testdata/broken_test.star:4:5: undefined: undefined_name") {
		t.Errorf("text:\n%s", got)
	}
	if _, err := policytest.Run(t.Context(), []string{"testdata/nothere_test.star"}, policytest.Options{}); err == nil {
		t.Error("a file that is not there: no error")
	}
	if _, err := policytest.Run(t.Context(), []string{t.TempDir()}, policytest.Options{}); err == nil {
		t.Error("a directory without tests: no error")
	}
}

func TestJSON(t *testing.T) {
	r := run(t, policytest.Options{}, "testdata/broken_test.star", "testdata/passes_test.star")
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Passed, Failed int
		Files          []struct {
			Path   string
			Errors []struct{ Pos, Message string }
			Tests  []struct{ Name string }
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Passed != 6 || got.Failed != 0 || len(got.Files) != 2 || len(got.Files[0].Errors) != 1 ||
		got.Files[0].Errors[0].Pos != "testdata/broken_test.star:4:5" || len(got.Files[1].Tests) != 6 {
		t.Errorf("JSON = %s", b.Bytes())
	}
}

// TestExamples runs the tests of the examples as seki test does.
func TestExamples(t *testing.T) {
	r := run(t, policytest.Options{}, "../../examples")
	if r.ExitCode() != 0 {
		t.Error(text(t, r, false))
	}
}
