package kernel

// Dropped is tested by itself: a configuration that loses an option needs
// another kernel's source.
var Dropped = dropped

// Sums are the hashes by which Find knows this program's kernels.
func Sums() (config, patch string) { return sum(configText), sum(patchText) }
