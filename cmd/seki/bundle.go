package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark"
)

// maxBundle bounds what is read of a config.json.
const maxBundle = 4 << 20

// loadBundle makes a pod of an OCI bundle: one container, of the directory's
// name, without a network card (OCI runtime-spec 1.3, bundle.md). Paths of the
// configuration are relative to the bundle, as the specification says.
func (a *app) loadBundle(dir string) (*starlark.Pod, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.json")
	oci, err := readBundle(path)
	if err != nil {
		return nil, usage("%s: %w", path, err)
	}
	s := &bundle.Spec{Name: starlark.PodName(filepath.Base(dir)), OCI: *oci}
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: within(dir, oci.Root.Path)}
	for i := range s.OCI.Mounts {
		m := &s.OCI.Mounts[i]
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			m.Type, m.Source = "bind", within(dir, m.Source)
		}
	}
	if err := s.Validate(); err != nil {
		// The words of package bundle, which has the configuration below oci.
		return nil, usage("%s: %s", path, strings.ReplaceAll(strings.ReplaceAll(err.Error(), "oci.", ""), "\n", "\n"+path+": "))
	}
	return &starlark.Pod{Name: s.Name, Path: path, Containers: []*starlark.Container{{Spec: s}}}, nil
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// readBundle reads a configuration. Properties that it does not know are
// ignored, as the specification demands ("Extensibility"); what they ask for
// and we would not do is refused.
func readBundle(path string) (*specs.Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return nil, errors.New(cause(err))
	}
	if len(b) > maxBundle {
		return nil, fmt.Errorf("larger than %d bytes", maxBundle)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	switch {
	case !strings.HasPrefix(s.Version, "1."):
		return nil, fmt.Errorf("ociVersion %q: want 1.x", s.Version)
	case s.Root == nil || s.Root.Path == "":
		return nil, errors.New("root.path: missing")
	case s.Hooks != nil:
		return nil, errors.New("hooks: programs of the host are not run for a bundle: write a .star file with callbacks")
	}
	return &s, nil
}
