package main

import (
	"errors"
	"math"
	"testing"
)

func TestDuel(t *testing.T) {
	for _, tt := range []struct {
		ours, peer []float64
		want       float64
	}{
		{[]float64{2}, []float64{4}, 0.5},
		{[]float64{1, 30, 2}, []float64{2, 20, 2}, 1},             // the slow round counts as much as the others
		{[]float64{1, 1, 100, 100}, []float64{1, 2, 50, 25}, 1.5}, // even
	} {
		if got := (duel{tt.ours, tt.peer}).ratio(); got != tt.want {
			t.Errorf("ratio of %v and %v = %v; want %v", tt.ours, tt.peer, got, tt.want)
		}
	}
}

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		n, k int
		want float64
	}{{1, 0, 0.5}, {1, 1, 1}, {2, 0, 0.25}, {10, 1, 11.0 / 1024}, {21, 21, 1}} {
		if got := tail(tt.n, tt.k); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("tail(%d, %d) = %v; want %v", tt.n, tt.k, got, tt.want)
		}
	}
}

// TestFight: as many rounds as were asked for where they agree, more where they
// do not, and an end to it.
func TestFight(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ratio func(i int) float64
		want  int
	}{
		{"clear", func(int) float64 { return 1 }, 10},
		{"clearly missed", func(int) float64 { return 2 * slack }, 10},
		{"at the limit", func(i int) float64 { return slack + float64(i%2) - 0.5 }, 10 * patience},
		{"clear in the end", func(i int) float64 { // 5 of 10 above, then none: 5 of 23 is chance, 5 of 24 is less
			if i < 5 {
				return 2 * slack
			}
			return 1
		}, 24},
	} {
		var d duel
		i := 0
		if err := fight(10, 1, func() duel { return d }, func() error {
			d.ours, d.peer = append(d.ours, tt.ratio(i)), append(d.peer, 1)
			i++
			return nil
		}); err != nil || i != tt.want {
			t.Errorf("%s: %d rounds, %v; want %d", tt.name, i, err, tt.want)
		}
	}
	boom := errors.New("boom")
	if err := fight(1, 1, func() duel { return duel{} }, func() error { return boom }); err != boom {
		t.Errorf("fight = %v; want %v", err, boom)
	}
}
