package kernel

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed super7.patch
var super7Patch []byte

// fileHeader begins the part of a patch that is about one file.
var fileHeader = []byte("--- a/")

// A filePatch is what is changed in one file of the source.
type filePatch struct {
	file string
	text []byte
}

// split takes a patch apart.
func split(patch []byte) (all []filePatch) {
	for i, part := range bytes.Split(append([]byte("\n"), patch...), append([]byte("\n"), fileHeader...)) {
		if i == 0 {
			continue // what it is for
		}
		name, _, _ := bytes.Cut(part, []byte("\n"))
		all = append(all, filePatch{string(name), append(append(bytes.Clone(fileHeader), part...), '\n')})
	}
	return all
}

// newer are the changes of files that other versions of Linux have otherwise.
var newer = split(super7Patch)

// mended names what a version of Linux has where nothing is to be changed any
// more: from 6.13 on the size of the floating-point state is the host's.
var mended = map[string]string{"arch/x86/um/os-Linux/registers.c": "host_fp_size"}

// patchOther patches the source of a version that is not our package's: each
// file by the first change that applies, wholly or not at all. What only makes a
// kernel faster is left out: it was written for one version.
func patchOther(ctx context.Context, tree string) error {
	for _, p := range split(neededPatch) {
		source, err := os.ReadFile(filepath.Join(tree, p.file))
		if err != nil {
			return fmt.Errorf("patch: %w", err)
		}
		if sign := mended[p.file]; sign != "" && bytes.Contains(source, []byte(sign)) {
			continue
		}
		ways := [][]byte{p.text}
		for _, n := range newer {
			if n.file == p.file {
				ways = append(ways, n.text)
			}
		}
		if err := applyOne(ctx, tree, ways); err != nil {
			return fmt.Errorf("patch %s, which other versions have otherwise: %w", p.file, err)
		}
	}
	return nil
}

// applyOne applies the first patch that fits.
func applyOne(ctx context.Context, tree string, ways [][]byte) error {
	var errs []error
	for _, text := range ways {
		err := apply(ctx, tree, text, "--dry-run")
		if err == nil {
			return apply(ctx, tree, text)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// apply calls patch(1). Lines may have moved, their context may not have changed.
func apply(ctx context.Context, tree string, text []byte, flags ...string) error {
	file := filepath.Join(filepath.Dir(tree), "seki.patch")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	_, err := output(ctx, tree, "patch", append([]string{"-p1", "--fuzz=0", "--batch", "-i", file}, flags...)...)
	return err
}

// version asks an unpacked source what it is.
func version(ctx context.Context, tree string) (string, error) {
	v, err := output(ctx, tree, "make", "-s", "kernelversion")
	if err == nil && (v == "" || strings.ContainsAny(v, " /\n")) {
		err = fmt.Errorf("make kernelversion says %q", v)
	}
	if err != nil {
		return "", fmt.Errorf("not a source of Linux: %w", err)
	}
	return v, nil
}
