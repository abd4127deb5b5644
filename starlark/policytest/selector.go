package policytest

import (
	"fmt"
	"regexp"
	"strings"
)

// A Selector chooses tests by name: one regular expression for the test
// function, one for the tests inside it, and so on. The zero Selector chooses
// all.
type Selector []*regexp.Regexp

// ParseSelector reads a pattern as --run has it: regular expressions with a
// slash between them.
func ParseSelector(pattern string) (Selector, error) {
	if pattern == "" {
		return nil, nil
	}
	var s Selector
	for _, part := range strings.Split(pattern, "/") {
		re, err := regexp.Compile(part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		s = append(s, re)
	}
	return s, nil
}

// selects reports whether the test of this name is to run.
func (o *Options) selects(name string) bool {
	parts := strings.Split(name, "/")
	for i, re := range o.Run {
		if i < len(parts) && !re.MatchString(parts[i]) {
			return false
		}
	}
	return true
}
