package kernel

import (
	"fmt"
	"strings"
)

// Dropped is tested by itself: a configuration that loses an option needs
// another kernel's source.
var Dropped = dropped

// SourcePackage is the one whose kernels Find finds.
const SourcePackage = sourcePackage

// Sums are the hashes by which Find knows this program's kernels.
func Sums() (config, patch string) { return sum(configText), sum(patchText) }

// SetHost has builds look elsewhere for the source and for no library, until
// the function that it returns is called.
func SetHost(source string) (restore func()) {
	s, l := sourceDir, libraries
	sourceDir, libraries = source, nil
	return func() { sourceDir, libraries = s, l }
}

// Patched makes of the patches the files that they are for, as a newer version
// has them: what is before the change of each, in the form of that version, and
// sign where nothing is to be changed any more.
func Patched(sign string) map[string]string {
	files := map[string]string{}
	for _, p := range append(split(patchText), newer...) {
		text := ""
		at := 0
		for line := range strings.Lines(string(p.text)) {
			var from int
			if n, _ := fmt.Sscanf(line, "@@ -%d,", &from); n == 1 {
				for ; at+1 < from; at++ {
					text += "\n"
				}
				continue
			}
			if line != "" && (line[0] == ' ' || line[0] == '-') && !strings.HasPrefix(line, "--- ") {
				text += line[1:]
				at++
			}
		}
		if mended[p.file] != "" {
			text = sign
		}
		files[p.file] = text
	}
	return files
}
