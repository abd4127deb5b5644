package policytest_test

import (
	"bytes"
	"encoding/xml"
	"regexp"
	"strings"
	"testing"

	"sekimori/starlark/policytest"
)

func write(t *testing.T, r *policytest.Report, format string) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b, format, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true}, "testdata/broken_test.star", "testdata/passes_test.star", "testdata/lifefails_test.star")
	for _, format := range policytest.Formats() {
		if write(t, r, format) == "" {
			t.Errorf("%s: empty", format)
		}
	}
	if err := r.Write(&bytes.Buffer{}, "yaml", false); err == nil {
		t.Error("an unknown format: no error")
	}
}

func TestJUnit(t *testing.T) {
	r := run(t, policytest.Options{}, "testdata/broken_test.star", "testdata/passes_test.star", "testdata/lifefails_test.star")
	var got struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	text := write(t, r, "junit")
	if err := xml.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Errors != 1 || got.Failures != 11 || got.Tests != 1+6+12 || len(got.Suites) != 3 {
		t.Errorf("tests, failures, errors, suites = %d, %d, %d, %d", got.Tests, got.Failures, got.Errors, len(got.Suites))
	}
}

func TestTAP(t *testing.T) {
	r := run(t, policytest.Options{}, "testdata/broken_test.star", "testdata/passes_test.star", "testdata/lifefails_test.star")
	got := write(t, r, "tap")
	for _, want := range []string{
		`^TAP version 13\n1\.\.19\nnot ok 1 - testdata/broken_test.star\n  ---\n  message: \|\n    testdata/broken`,
		`(?m)^ok 2 - testdata/passes_test.star test_verdicts$`,
		`(?m)^not ok \d+ - testdata/lifefails_test.star test_a_case/a$`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
}

func TestGitHub(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true}, "testdata/broken_test.star", "testdata/lifefails_test.star", "testdata/fails_test.star")
	got := write(t, r, "github")
	for _, want := range []string{
		`(?m)^::error file=testdata/broken_test.star,line=4,col=5,title=cannot load testdata/broken_test.star::testdata/broken`,
		`(?m)^::error file=testdata/lifefails_test.star,line=\d+,col=\d+,title=test_a_case/a::.*got forward, want drop.*%0A`,
		`(?m)^::warning file=testdata/fails_test.star,line=6,title=coverage::`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, " ") {
			t.Errorf("a command goes on in the next line: %q", line)
		}
	}
}

func TestCoverageListing(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true, Run: selector(t, "other_guard")}, "testdata/fails_test.star")
	var list, page strings.Builder
	if err := r.WriteListing(&list); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-    4|     return dst_ip ==", "      | column 12: ", "     1| "} {
		if !strings.Contains(list.String(), want) {
			t.Errorf("listing has no %q:\n%s", want, list.String())
		}
	}
	if !strings.Contains(page.String(), `<span class="m">    return dst_ip == ip(&#34;10.0.0.1&#34;)</span>`) {
		t.Errorf("page:\n%s", page.String())
	}
	if len(r.Below(100)) != 1 || len(r.Below(0)) != 0 {
		t.Errorf("Below(100), Below(0) = %v, %v", r.Below(100), r.Below(0))
	}
}

// What no test asks is not covered: here the container's policy.
func TestCoverageOfTheUntested(t *testing.T) {
	r := run(t, policytest.Options{Coverage: true, Run: selector(t, "^test_each")}, "testdata/life_test.star")
	if len(r.Coverage) != 1 || r.Coverage[0].Percent() == 100 {
		t.Errorf("coverage = %+v", r.Coverage)
	}
}

func TestBench(t *testing.T) {
	r := run(t, policytest.Options{Bench: true, Run: selector(t, "test_verdicts")}, "testdata/passes_test.star")
	b := r.Files[0].Tests[0].Bench
	if b == nil || b.Frames != 9 || b.NSPerFrame <= 0 || b.MaxSteps == 0 {
		t.Errorf("Bench = %+v", b)
	}
	if got := text(t, r, false); !strings.Contains(got, "bench test_verdicts: ") {
		t.Errorf("text:\n%s", got)
	}
}
