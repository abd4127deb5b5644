package main

import "testing"

// TestAgree holds every engine to the expected verdict on every frame: a race
// between programs that do not do the same would say nothing.
func TestAgree(t *testing.T) {
	all, err := engines()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		for _, s := range append(samples(), strangers()...) {
			if got := e.judge(s.frame); got != s.forward {
				t.Errorf("%s: %s: forward = %v, want %v", e.name, s.name, got, s.forward)
			}
		}
	}
}
