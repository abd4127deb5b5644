package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"sekimori/starlark/format"
)

// fmtOptions are the flags of fmt.
type fmtOptions struct{ list, diff, check bool }

func (a *app) fmtCommand() *cobra.Command {
	var o fmtOptions
	cmd := &cobra.Command{
		Use:   "fmt [PATH...]",
		Short: "lay out .star files in the one form",
		Long: `Fmt rewrites .star files, and those below directories, in the form of buildifier.
Without a PATH, or with -, it formats standard input to standard output.
--list, --diff and --check write nothing.`,
		Example: "  seki fmt --check examples || seki fmt -d examples",
	}
	cmd.RunE = func(cmd *cobra.Command, paths []string) error {
		if len(paths) == 0 {
			paths = []string{"-"}
		}
		return a.format(paths, o)
	}
	f := cmd.Flags()
	f.BoolVarP(&o.list, "list", "l", false, "print the names of files that would change")
	f.BoolVarP(&o.diff, "diff", "d", false, "print what would change")
	f.BoolVar(&o.check, "check", false, "exit with 1 if a file would change")
	cmd.ValidArgsFunction = starFiles
	return cmd
}

func (a *app) format(paths []string, o fmtOptions) error {
	files, err := starlarkFiles(paths)
	if err != nil {
		return &codeError{exitUsage, err}
	}
	wrong, changed := false, false
	for _, path := range files {
		c, err := a.formatFile(path, o)
		if err != nil {
			a.complain(err)
			wrong = true
		}
		changed = changed || c
	}
	switch {
	case wrong:
		return &codeError{code: exitUsage}
	case o.check && changed:
		return &codeError{code: exitFailed}
	}
	return nil
}

// formatFile formats one file; path - is standard input.
func (a *app) formatFile(path string, o fmtOptions) (changed bool, err error) {
	name, src := path, []byte(nil)
	if path == "-" {
		name = "standard input"
		src, err = io.ReadAll(a.stdin)
	} else {
		src, err = os.ReadFile(path)
	}
	if err != nil {
		return false, err
	}
	out, err := format.Source(name, src)
	if err != nil {
		return false, positioned(err)
	}
	changed = !bytes.Equal(src, out)
	writes := !o.list && !o.diff && !o.check
	if writes && path == "-" {
		_, err := a.stdout.Write(out)
		return changed, err
	}
	if !changed {
		return false, nil
	}
	if o.list || o.check && !o.diff {
		fmt.Fprintln(a.stdout, name)
	}
	if o.diff {
		if _, err := a.stdout.Write(diff.Diff(name, src, name+" (formatted)", out)); err != nil {
			return true, err
		}
	}
	if !writes {
		return true, nil
	}
	return true, replaceFile(path, out)
}

// replaceFile writes a file beside the old one and takes its place.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// starlarkFiles are the files of paths: each file, and the .star files below
// each directory but for hidden ones and testdata.
func starlarkFiles(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if p == "-" {
			out = append(out, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", p, cause(err))
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
			case d.Type().IsRegular() && strings.HasSuffix(name, ".star"):
				out = append(out, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no .star file in %s", strings.Join(paths, ", "))
	}
	return out, nil
}
