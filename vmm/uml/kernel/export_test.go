package kernel

// Dropped is tested by itself: a configuration that loses an option needs
// another kernel's source.
var Dropped = dropped

// Sums are the hashes by which Find knows this program's kernels.
func Sums() (config, patch string) { return sum(configText), sum(patchText) }

// SetHost has builds look elsewhere for the source and for no library, until
// the function that it returns is called.
func SetHost(source string) (restore func()) {
	s, l := sourceDir, libraries
	sourceDir, libraries = source, nil
	return func() { sourceDir, libraries = s, l }
}
