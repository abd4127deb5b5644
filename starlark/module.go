package starlark

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
	"sekimori/starlark/std"
	"sekimori/starlark/value"
)

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
		globals, err := s.module(th, next)
		if gone := (*Error)(nil); errors.As(err, &gone) && gone.Pos.Line == 0 && next == name {
			// The load statement names it already.
			gone.Msg = strings.TrimPrefix(gone.Msg, s.shown(next)+": ")
		}
		return globals, err
	}
	policy.Later(th, &s.later)
	if s.collect != nil {
		config.Attach(th, s.collect(shown))
	}
	s.mu.Lock()
	s.running[th] = true
	if s.stopped != "" {
		th.Cancel(s.stopped)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, th)
		s.mu.Unlock()
	}()
	return s.sources.Exec(th, shown, dotload.Allow(shown, data))
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
	if s.root == nil {
		data, ok := s.opts.Sources[key]
		if !ok {
			return nil, fmt.Errorf("%s: %w", s.shown(key), fs.ErrNotExist)
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
