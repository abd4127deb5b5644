package starlark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"sekimori/starlark/config"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

// Bounds of an evaluation, where Options say nothing.
const (
	DefaultMaxSteps  = 10_000_000 // about a second
	DefaultMaxMemory = 256 << 20  // growth of the heap, in bytes
	maxSource        = 1 << 20    // bytes of one file
)

// Options say how to evaluate.
type Options struct {
	// Pod is the name of the pod, part of every derived MAC address; empty
	// means that of the file.
	Pod string
	// Params are the values given with --set, by name.
	Params map[string]string
	// ModuleRoot is the directory that no load may leave; empty means the
	// directory of the file.
	ModuleRoot string
	// Sources, if not nil, are read in place of the module root: files by their
	// slash-separated path below it, as [Pod.Sources] returns them.
	Sources map[string][]byte
	// Print takes what print() says; nil discards it.
	Print func(string)
	// MaxSteps bounds the steps of the whole evaluation; 0 means
	// DefaultMaxSteps.
	MaxSteps uint64
	// MaxMemory bounds the growth of the heap in bytes; 0 means
	// DefaultMaxMemory.
	MaxMemory uint64
	// Predeclared are further names that every file can use.
	Predeclared starlark.StringDict
}

// A Session evaluates files that share modules: each is evaluated once. Its
// values are frozen as soon as their file has been evaluated, so threads of
// the session may use them at the same time.
//
// Evaluating files ([Session.Exec]) is for one goroutine.
type Session struct {
	opts    Options
	rootDir string // module root as it is shown
	absRoot string
	root    *os.Root // nil with Options.Sources
	sources *policy.Sources
	// collect makes the collector for a module of the given file name.
	collect func(filename string) *config.Collector
	modules map[string]*module
	later   []error // mistakes in policy() calls, for Exec to report

	// mu guards the fields below: callbacks read texts, the watch stops threads.
	mu      sync.Mutex
	texts   map[string][]byte
	running map[*starlark.Thread]bool
	stopped string // why nothing may be evaluated any more; empty if it may
}

// A module is one evaluated file.
type module struct {
	globals starlark.StringDict
	err     error
	done    bool // false while it is being evaluated
}

// NewSession opens the module root. Close it when all files are evaluated;
// threads and values stay usable.
//
// The collector of each file comes from collect: the same one for all files
// where they describe one pod. With a nil collect, container() is an error.
func NewSession(opts Options, collect func(filename string) *config.Collector) (*Session, error) {
	if opts.MaxSteps == 0 {
		opts.MaxSteps = DefaultMaxSteps
	}
	if opts.MaxMemory == 0 {
		opts.MaxMemory = DefaultMaxMemory
	}
	if opts.ModuleRoot == "" {
		opts.ModuleRoot = "."
	}
	absRoot, err := filepath.Abs(opts.ModuleRoot)
	if err != nil {
		return nil, fmt.Errorf("module root: %w", err)
	}
	var root *os.Root
	if opts.Sources == nil {
		if root, err = os.OpenRoot(opts.ModuleRoot); err != nil {
			return nil, fmt.Errorf("module root: %w", err)
		}
	}
	s := &Session{
		opts: opts, rootDir: filepath.Clean(opts.ModuleRoot), absRoot: absRoot, root: root, collect: collect,
		modules: map[string]*module{}, texts: map[string][]byte{}, running: map[*starlark.Thread]bool{},
	}
	s.sources = policy.NewSources(predeclared(opts.Predeclared))
	s.sources.Rewrite = measureFile
	return s, nil
}

// Close closes the module root.
func (s *Session) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

// predeclared are the names of every file.
func predeclared(more starlark.StringDict) starlark.StringDict {
	all := starlark.StringDict{}
	for _, names := range []starlark.StringDict{budgetBuiltins(), value.Builtins(), config.Predeclared(), more} {
		for name, v := range names {
			all[name] = v
		}
	}
	return all
}

// Exec evaluates the file name, a path relative to the module root with
// slashes, or "@seki//NAME", and returns its frozen globals.
func (s *Session) Exec(ctx context.Context, name string) (starlark.StringDict, error) {
	stop := s.watch(ctx)
	defer stop()
	if !strings.HasPrefix(name, stdPrefix) {
		name = path.Clean(name)
	}
	s.later = nil
	globals, err := s.module(nil, name)
	if err = errors.Join(append(s.later, err)...); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(s.Explain(err), context.Cause(ctx))
			return nil, err
		}
		return nil, s.Explain(err)
	}
	return globals, nil
}

// Thread is a new thread for calling functions of the session's files.
func (s *Session) Thread(name string) *starlark.Thread {
	th := &starlark.Thread{Name: name}
	s.prepare(th)
	th.SetMaxExecutionSteps(s.opts.MaxSteps)
	return th
}

// prepare sets what every thread of the session has. load() inside a function
// does not exist, so only files need a Load.
func (s *Session) prepare(th *starlark.Thread) {
	if th.Print == nil {
		th.Print = func(_ *starlark.Thread, msg string) {
			if s.opts.Print != nil {
				s.opts.Print(msg)
			}
		}
	}
	th.OnMaxSteps = func(th *starlark.Thread) {
		th.Cancel(fmt.Sprintf("more than %d steps", th.ExecutionSteps()))
	}
}
