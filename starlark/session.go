package starlark

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/policy"
	"sekimori/starlark/std"
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
	// Params are the values given with --set, by name.
	Params map[string]string
	// ModuleRoot is the directory that no load may leave; empty means the
	// directory of the file.
	ModuleRoot string
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
	root    *os.Root
	sources *policy.Sources
	// collect makes the collector for a module of the given file name.
	collect func(filename string) *config.Collector
	modules map[string]*module

	// mu guards texts and running: callbacks may read while files load.
	mu      sync.Mutex
	texts   map[string][]byte
	running map[*starlark.Thread]bool
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
	root, err := os.OpenRoot(opts.ModuleRoot)
	if err != nil {
		return nil, fmt.Errorf("module root: %w", err)
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
func (s *Session) Close() error { return s.root.Close() }

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
	globals, err := s.module(nil, path.Clean(name))
	if err != nil {
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
		th.Cancel(fmt.Sprintf("more than %d steps", s.opts.MaxSteps))
	}
}

// watch ends the evaluation when ctx ends or the heap has grown too far. The
// watch samples: what grows by many small bites is caught between two samples,
// and budget.go bounds the size of one bite.
func (s *Session) watch(ctx context.Context) (stop func()) {
	cancel := func(why string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for th := range s.running {
			th.Cancel(why)
		}
	}
	unhook := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx).Error()) })
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() { // ends with stop, which waits for it
		defer close(finished)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		// The first look is a tick late, when most files are evaluated: it
		// costs 0.1 ms to set runtime/metrics up.
		most := uint64(0)
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if most == 0 {
				most = heapBytes() + s.opts.MaxMemory
			} else if heapBytes() > most {
				runtime.GC() // what nobody holds does not count
				if heapBytes() > most {
					cancel(fmt.Sprintf("more than %d MiB of memory", s.opts.MaxMemory>>20))
				}
			}
		}
	}()
	return func() {
		unhook()
		close(done)
		<-finished
	}
}

func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// module evaluates a module once. from is the thread of the file that loads it.
func (s *Session) module(from *starlark.Thread, key string) (starlark.StringDict, error) {
	if m, ok := s.modules[key]; ok {
		if !m.done {
			return nil, fmt.Errorf("load cycle: %s is being loaded already", s.shown(key))
		}
		return m.globals, m.err
	}
	m := &module{}
	s.modules[key] = m
	m.globals, m.err = s.exec(from, key)
	m.done = true
	if m.err != nil {
		m.err = s.Explain(m.err)
	}
	return m.globals, m.err
}

func (s *Session) exec(from *starlark.Thread, key string) (starlark.StringDict, error) {
	data, err := s.read(key)
	if err != nil {
		return nil, err
	}
	shown := s.shown(key)
	s.mu.Lock()
	s.texts[shown] = data
	s.mu.Unlock()

	th := s.Thread(shown)
	if from != nil {
		// One budget for all files of an evaluation.
		th.Steps = from.Steps
		defer func() { from.Steps = th.Steps }()
	}
	th.Load = func(th *starlark.Thread, name string) (starlark.StringDict, error) {
		next, err := s.resolve(key, name)
		if err != nil {
			return nil, err
		}
		return s.module(th, next)
	}
	if s.collect != nil {
		config.Attach(th, s.collect(shown))
	}
	s.mu.Lock()
	s.running[th] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, th)
		s.mu.Unlock()
	}()
	return s.sources.Exec(th, shown, allowDotLoad(shown, data))
}

// stdPrefix begins the names of the standard library's modules.
const stdPrefix = "@seki//"

// resolve finds the key of the module that the file from calls name.
func (s *Session) resolve(from, name string) (string, error) {
	if rest, ok := strings.CutPrefix(name, stdPrefix); ok {
		if !fs.ValidPath(rest) {
			return "", fmt.Errorf("%q is no module of the standard library", name)
		}
		return name, nil
	}
	switch {
	case strings.HasPrefix(name, "@"):
		return "", &args.Error{Msg: fmt.Sprintf("unknown library %q", name), Hint: `the standard library is "@seki//..."`}
	case name == "" || strings.HasPrefix(name, "/") || strings.ContainsAny(name, "\\\x00"):
		return "", &args.Error{Msg: fmt.Sprintf("%q is no relative path", name), Hint: "modules are named relative to the file that loads them"}
	}
	if rest, ok := strings.CutPrefix(from, stdPrefix); ok {
		name = path.Join(path.Dir(rest), name)
		return stdPrefix + name, nil
	}
	key := path.Join(path.Dir(from), name)
	if !fs.ValidPath(key) {
		return "", &args.Error{Msg: fmt.Sprintf("%q leaves the module root %s", name, s.rootDir), Hint: "modules come from below the directory of the file that is run, or from @seki//"}
	}
	return key, nil
}

// shown is a module's name in positions.
func (s *Session) shown(key string) string {
	if strings.HasPrefix(key, stdPrefix) {
		return key
	}
	return filepath.Join(s.rootDir, filepath.FromSlash(key))
}

// read reads a module. os.Root follows no symlink out of the module root.
func (s *Session) read(key string) ([]byte, error) {
	if rest, ok := strings.CutPrefix(key, stdPrefix); ok {
		data, err := fs.ReadFile(std.Files, rest)
		if err != nil {
			return nil, s.noStd(rest)
		}
		return data, nil
	}
	// Opening a FIFO would wait for its writer, so look first.
	if info, err := s.root.Stat(key); err != nil {
		return nil, fmt.Errorf("%s: %w", s.shown(key), reason(err))
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", s.shown(key))
	}
	f, err := s.root.Open(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.shown(key), reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.shown(key), reason(err))
	}
	if len(data) > maxSource {
		return nil, fmt.Errorf("%s: larger than %d bytes", s.shown(key), maxSource)
	}
	return data, nil
}

// reason is an error of the file system without its path.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *Session) noStd(name string) error {
	entries, err := fs.ReadDir(std.Files, ".")
	if err != nil {
		return err
	}
	var known []string
	for _, e := range entries {
		known = append(known, stdPrefix+e.Name())
	}
	hint := "known are " + strings.Join(known, ", ")
	msg := fmt.Sprintf("no module %q in the standard library", stdPrefix+name)
	if near := value.Suggest(stdPrefix+name, known); near != "" {
		msg += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return &args.Error{Msg: msg, Hint: hint}
}

// Text is the source of an evaluated file, by the name its positions show.
func (s *Session) Text(filename string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.texts[filename]
	return data, ok
}

// Line is one line of an evaluated file, without surrounding space.
func (s *Session) Line(filename string, line int) string {
	data, _ := s.Text(filename)
	for i, l := range strings.Split(string(data), "\n") {
		if i == line-1 {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// argument is the position of the argument name of the call at pos.
func (s *Session) argument(pos syntax.Position, name string) (found syntax.Position, ok bool) {
	data, known := s.Text(pos.Filename())
	if name == "" || !known {
		return pos, false
	}
	f, err := policy.Options.Parse(pos.Filename(), allowDotLoad(pos.Filename(), data), 0)
	if err != nil {
		return pos, false
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		c, isCall := n.(*syntax.CallExpr)
		if isCall && c.Lparen.Line == pos.Line && c.Lparen.Col == pos.Col {
			for _, a := range c.Args {
				if b, isNamed := a.(*syntax.BinaryExpr); isNamed && b.Op == syntax.EQ {
					if id, isName := b.X.(*syntax.Ident); isName && id.Name == name {
						found, ok = id.NamePos, true
					}
				}
			}
		}
		return !ok
	})
	return found, ok
}
