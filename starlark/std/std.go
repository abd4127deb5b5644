// Package std is the standard library of .star files, embedded:
//
//	load("@seki//policy.star", "clean_traffic", "arp_pin")
//
// Its modules are ordinary .star files with docstrings, and have tests beside
// them that seki test runs.
package std

import "embed"

// Files holds the modules by name.
//
//go:embed policy.star
var Files embed.FS
