package starlark

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow/frame"
	"sekimori/starlark/config"
	"sekimori/starlark/policy"
)

// What a file describes. The types are those of starlark/config.
type (
	// A Container is one container() of a file.
	Container = config.Container
	// A Callback is a function to run at a point of a container's life.
	Callback = config.Callback
	// A Ready says when a container counts as ready.
	Ready = config.Ready
	// A Host is a container as its callbacks may see and touch it.
	Host = config.Host
	// An ExecResult is how a command inside a container ended.
	ExecResult = config.ExecResult
	// A Param is a declared parameter of a file.
	Param = config.PodParam
)

// A Pod is what one .star file describes. It is immutable.
type Pod struct {
	// Name is the file's name without directory and ".star".
	Name string
	// Path is the file, as given to Load.
	Path string
	// Containers in the order of the file.
	Containers []*Container
	// Uplink is the way out of the pod's switch, nil if there is none.
	Uplink *bundle.Uplink
	// Machine is the kernel that it runs on, nil if the file does not say.
	Machine *bundle.Machine
	// Params are the declared parameters in the order of the file.
	Params []Param
	// Digest is the SHA-256 of all that the pod was made from: the files by
	// name and content, and the values of the parameters.
	Digest string
	// Policies are the policies that are global names of the file: those that
	// callbacks load, most likely.
	Policies map[string]*policy.Policy

	session *Session
}

// Load evaluates the file and everything it loads, compiles its policies, and
// returns the pod it describes. Errors are *Error, joined if several.
func Load(ctx context.Context, path string, opts Options) (*Pod, error) {
	root, name, err := moduleRoot(path, opts.ModuleRoot)
	if err != nil {
		return nil, &Error{Msg: err.Error(), err: err}
	}
	opts.ModuleRoot = root
	var col *config.Collector
	s, err := NewSession(opts, func(string) *config.Collector { return col })
	if err != nil {
		return nil, &Error{Msg: err.Error(), err: err}
	}
	defer s.Close()
	col = s.Collector(cmp.Or(opts.Pod, PodName(path)))
	globals, err := s.Exec(ctx, name)
	pod := &Pod{Name: col.Pod, Path: path, Containers: col.Containers, Uplink: col.Uplink, Machine: col.Machine, Params: col.Params, Policies: map[string]*policy.Policy{}, session: s}
	if err != nil && ctx.Err() == nil {
		// What was described until then may hold more mistakes: one run finds all.
		return nil, s.Explain(errors.Join(pod.compile(nil), err))
	}
	if err != nil {
		return nil, err
	}
	if err := s.Explain(errors.Join(col.UnknownParams(), col.Finish(), pod.compile(globals))); err != nil {
		return nil, err
	}
	pod.Digest = s.digest(col.Params)
	return pod, nil
}

// PodName is the name of the pod that the file at path describes: its base
// without ".star", with "-" for what no name may hold. A test file is named
// after the file it tests.
func PodName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".star")
	name = strings.TrimSuffix(name, "_test")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r) {
			return r
		}
		return '-'
	}, name)
	name = strings.TrimLeft(name, "_.-")
	if len(name) > 63 {
		name = name[:63]
	}
	if name == "" {
		name = "pod"
	}
	return name
}

// moduleRoot is the root and the name of the file below it.
func moduleRoot(path, root string) (dir, name string, err error) {
	if root == "" {
		// The user names the file itself, wherever a link of that name leads;
		// from there on nothing leaves its directory.
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
			if path, err = filepath.EvalSymlinks(path); err != nil {
				return "", "", err
			}
		}
		return filepath.Dir(path), filepath.Base(path), nil
	}
	absRoot, err := filepath.Abs(root)
	if err != nil {
		return "", "", err
	}
	absPath, err := filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	rel, err := filepath.Rel(absRoot, absPath)
	if err != nil || !filepath.IsLocal(rel) {
		return "", "", fmt.Errorf("%s: outside the module root %s", path, root)
	}
	return root, filepath.ToSlash(rel), nil
}

// Collector is a new collector for files of the session.
func (s *Session) Collector(pod string) *config.Collector {
	return &config.Collector{Pod: pod, Set: s.opts.Params, Dir: s.hostDir, Thread: s.prepare, Explain: s.Explain}
}

// hostDir is the directory that relative host paths of a file mean. The
// standard library names none.
func (s *Session) hostDir(filename string) (string, bool) {
	rel, err := filepath.Rel(s.rootDir, filename)
	if err != nil || strings.HasPrefix(filename, stdPrefix) {
		return "", false
	}
	return filepath.Join(s.absRoot, filepath.Dir(rel)), true
}

// compile compiles the policy of each container for its card, and policies
// that are global names, which callbacks load later. What callbacks ask of
// their ctx is looked at, too.
func (p *Pod) compile(globals starlark.StringDict) error {
	var errs []error
	for _, c := range p.Containers {
		if c.Spec.NIC == nil || c.Policy == nil {
			continue
		}
		prog, err := c.Policy.Compile(c.Identity())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.Program = prog
	}
	for _, name := range globals.Keys() {
		if pol, ok := globals[name].(*policy.Policy); ok {
			p.Policies[name] = pol
			if _, err := pol.Compile(anyCard); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, p.misspelt()...)...)
}

// anyCard stands for a card of unknown addresses. It has both IP versions, so
// that no predicate is beyond reach and left unchecked.
var anyCard = policy.Identity{
	MAC:   frame.MAC{0x02, 0, 0, 0, 0, 0x02},
	Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 2}), netip.AddrFrom16([16]byte{0: 0xfd, 15: 2})},
}

// Text is the source of one of the pod's files, by the name that positions
// show.
func (p *Pod) Text(filename string) ([]byte, bool) { return p.session.Text(filename) }

// Line is one line of one of the pod's files, without surrounding space.
func (p *Pod) Line(filename string, line int) string { return p.session.Line(filename, line) }

// Root is the pod's module root, as it is shown in positions.
func (p *Pod) Root() string { return p.session.rootDir }

// Sources are the files that the pod was made from, without those of the
// standard library, by their slash-separated path below the module root. With
// them as [Options.Sources], the same path and root and the same parameters,
// [Load] gives the same pod anywhere.
func (p *Pod) Sources() map[string][]byte {
	sources := map[string][]byte{}
	for _, name := range p.Files() {
		rel, err := filepath.Rel(p.session.rootDir, name)
		if err != nil || strings.HasPrefix(name, stdPrefix) {
			continue
		}
		sources[filepath.ToSlash(rel)], _ = p.session.Text(name)
	}
	return sources
}

// Files are the names of the files the pod was made from, sorted.
func (p *Pod) Files() []string { return p.session.files() }

func (s *Session) files() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.texts {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// digest hashes the files, named relative to the module root, and the
// parameters.
func (s *Session) digest(params []Param) string {
	h := sha256.New()
	for _, name := range s.files() {
		text, _ := s.Text(name)
		rel := name
		if r, err := filepath.Rel(s.rootDir, name); err == nil && !strings.HasPrefix(name, stdPrefix) {
			rel = filepath.ToSlash(r)
		}
		fmt.Fprintf(h, "file %q %d\n", rel, len(text))
		h.Write(text)
	}
	params = slices.Clone(params)
	slices.SortFunc(params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range params {
		fmt.Fprintf(h, "param %q %q\n", p.Name, p.Value)
	}
	return hex.EncodeToString(h.Sum(nil))
}
