package policytest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	gostarlark "go.starlark.net/starlark"
	"golang.org/x/sync/errgroup"

	"sekimori/starlark"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
)

// Suffix ends the names of test files.
const Suffix = "_test.star"

// Options say which tests to run and how.
type Options struct {
	// Run selects tests by name; nil means all.
	Run Selector
	// ModuleRoot is the directory that no load may leave; empty means the
	// directory of each test file.
	ModuleRoot string
	// Coverage counts which tests of the compiled programs were made, and how
	// they came out.
	Coverage bool
	// Bench measures how long the frames of each test take to judge.
	Bench bool
	// Update writes the files of t.golden() where they differ.
	Update bool
	// MaxSteps bounds each test function; 0 means starlark.DefaultMaxSteps.
	MaxSteps uint64
}

// Run runs the tests of the files at paths. A path is a file, or a directory
// that is searched for *_test.star, hidden directories and testdata left out.
// What goes wrong in a file or a test is in the report; the error is that of
// finding files, or of ctx.
func Run(ctx context.Context, paths []string, opts Options) (*Report, error) {
	files, err := discover(paths)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	report := &Report{Files: make([]*FileReport, len(files))}
	cov := newCoverage(opts.Coverage)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, file := range files {
		g.Go(func() error { // ends with its tests, which ctx and the step budget bound
			report.Files[i] = runFile(ctx, file, opts, cov)
			return nil
		})
	}
	// The functions return no error: failures are in the reports.
	_ = g.Wait()
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	if opts.Bench {
		report.bench()
	}
	report.Duration = time.Since(began)
	report.Coverage = cov.report()
	return report, nil
}

// Check evaluates the test file at path and returns how many tests it has,
// without running them.
func Check(ctx context.Context, path string) (tests int, err error) {
	_, _, globals, err := loadFile(ctx, path, Options{})
	if err != nil {
		return 0, err
	}
	return len(testNames(globals, &Options{})), nil
}

// discover lists the test files of paths, each once.
func discover(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			out = append(out, p)
			continue
		}
		err = filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			switch name := filepath.Base(path); {
			case err != nil:
				return err
			case d.IsDir() && path != p && (strings.HasPrefix(name, ".") || name == "testdata"):
				return fs.SkipDir
			case d.Type().IsRegular() && strings.HasSuffix(name, Suffix):
				out = append(out, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no *%s file in %s", Suffix, strings.Join(paths, ", "))
	}
	var once []string
	for _, f := range out {
		if f = filepath.Clean(f); !slices.Contains(once, f) {
			once = append(once, f)
		}
	}
	return once, nil
}

// runFile evaluates a test file and runs its test functions in parallel.
func runFile(ctx context.Context, path string, opts Options, cov *coverage) *FileReport {
	began := time.Now()
	out := &FileReport{Path: path}
	defer func() { out.Duration = time.Since(began) }()
	s, known, globals, err := loadFile(ctx, path, opts)
	if err != nil {
		out.Err = err
		return out
	}
	suite := &suite{session: s, judge: newJudge(cov), opts: opts, dir: filepath.Dir(path), pods: known}
	names := testNames(globals, &opts)
	out.Tests = make([]*TestReport, len(names))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		fn := globals[name].(*gostarlark.Function)
		g.Go(func() error { // ends with its test, which ctx and the step budget bound
			out.Tests[i] = suite.run(ctx, name, fn)
			return nil
		})
	}
	// The functions return no error: failures are in the reports.
	_ = g.Wait()
	suite.untested()
	cov.sources(s)
	return out
}

// testNames are the selected test functions in the order of the file.
func testNames(globals gostarlark.StringDict, opts *Options) []string {
	var names []string
	for name, v := range globals {
		fn, ok := v.(*gostarlark.Function)
		if ok && strings.HasPrefix(name, "test_") && fn.Name() == name && opts.selects(name) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return int(globals[a].(*gostarlark.Function).Position().Line - globals[b].(*gostarlark.Function).Position().Line)
	})
	return names
}

// loadFile evaluates a test file. Each module has containers of its own: a
// test may load several pods.
func loadFile(ctx context.Context, path string, opts Options) (*starlark.Session, *pods, gostarlark.StringDict, error) {
	root := opts.ModuleRoot
	if root == "" {
		root = filepath.Dir(path)
	}
	name, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(name) {
		return nil, nil, nil, &starlark.Error{Msg: fmt.Sprintf("%s: outside the module root %s", path, root)}
	}
	var printed []string
	var s *starlark.Session
	known := &pods{}
	sopts := starlark.Options{
		ModuleRoot: root, MaxSteps: opts.MaxSteps, Predeclared: predeclared(ctx, root, func(p *starlark.Pod) { s.Know(p); known.took(p) }),
		Print: func(msg string) { printed = append(printed, msg) },
	}
	s, err = starlark.NewSession(sopts, func(filename string) *config.Collector {
		c := s.Collector(starlark.PodName(path))
		known.modules = append(known.modules, c)
		return c
	})
	if err != nil {
		return nil, nil, nil, err
	}
	globals, err := s.Exec(ctx, filepath.ToSlash(name))
	return s, known, globals, errors.Join(err, s.Close())
}

// predeclared are the names that test files have besides those of every file.
// Pods that a test loads are given to loaded.
func predeclared(ctx context.Context, root string, loaded func(*starlark.Pod)) gostarlark.StringDict {
	names := frames.Predeclared()
	for _, b := range inputBuiltins(ctx, root, loaded) {
		names[b.Name] = b.Value()
	}
	return names
}
