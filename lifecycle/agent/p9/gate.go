package p9

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// A gate is what Allow and Hide say of one directory: a tree by name that a
// walk goes down together with the directories. A nil gate is a directory that
// nothing is said of, below one that is open.
//
// Names alone would not do on a file system that folds case, where "SECRET" is
// the directory that Hide calls "secret": what is hidden is known by its inode,
// too (Export.hidden).
type gate struct {
	kids map[string]*gate
	open bool // all that is below is exported, except what kids say
}

// shut is the gate of what is hidden.
var shut = &gate{}

// newGate builds the tree. The longest path that matches a file decides.
func newGate(allow, hide []string) (*gate, error) {
	root := &gate{open: len(allow) == 0}
	type rule struct {
		names []string
		open  bool
	}
	var rules []rule
	for _, list := range []struct {
		paths []string
		open  bool
	}{{allow, true}, {hide, false}} {
		for _, p := range list.paths {
			names, err := splitPath(p)
			if err != nil {
				return nil, err
			}
			rules = append(rules, rule{names, list.open})
		}
	}
	// The shorter first, so that what a longer one makes on its way inherits.
	// The order among equals makes hiding the last word.
	slices.SortStableFunc(rules, func(a, b rule) int { return len(a.names) - len(b.names) })
	for _, r := range rules {
		g := root
		for _, name := range r.names {
			if g.kids == nil {
				g.kids = map[string]*gate{}
			}
			if g.kids[name] == nil {
				g.kids[name] = &gate{open: g.open}
			}
			g = g.kids[name]
		}
		g.open = r.open
	}
	return root, nil
}

// splitPath returns the names of a path below the export; none for the export
// itself.
func splitPath(p string) ([]string, error) {
	clean := path.Clean("/" + p)
	if strings.ContainsRune(p, 0) || slices.Contains(strings.Split(p, "/"), "..") {
		return nil, fmt.Errorf("path %q: not a plain path below the export", p)
	}
	if clean == "/" {
		return nil, nil
	}
	return strings.Split(clean[1:], "/"), nil
}

// enter returns the gate of the entry name, and whether there is such an entry
// for the guest at all.
func (g *gate) enter(name string) (*gate, bool) {
	if g == nil {
		return nil, true
	}
	if kid := g.kids[name]; kid != nil {
		return kid, true
	}
	return nil, g.open
}

// isOpen says whether the file at the gate is itself exported, not only shown
// on the way to something.
func (g *gate) isOpen() bool { return g == nil || g.open }

// empty says whether nothing below the gate is exported.
func (g *gate) empty() bool { return g != nil && !g.open && len(g.kids) == 0 }

// fixed says whether the entry name must stay what it is: if it could be
// renamed, what is hidden below it would come to light under another name.
func (g *gate) fixed(name string) bool {
	return g != nil && (!g.open || g.kids[name] != nil)
}
