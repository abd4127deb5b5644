package main

import (
	"math"
	"slices"
)

// A duel is ours and the peer's time of the same rounds, in which one runs right
// after the other: what else the machine does slows down both. So what counts
// is the ratio of each round, and of those the median. A ratio of two medians,
// or minima, is one of moments that may have nothing in common.
type duel struct{ ours, peer []float64 }

// ratio is the median of the rounds' ratios.
func (d duel) ratio() float64 {
	r := d.ratios()
	slices.Sort(r)
	if n := len(r); n%2 == 0 {
		return (r[n/2-1] + r[n/2]) / 2
	}
	return r[len(r)/2]
}

func (d duel) ratios() []float64 {
	r := make([]float64, len(d.ours))
	for i := range r {
		r[i] = d.ours[i] / d.peer[i]
	}
	return r
}

// chance is how likely a coin is to fall as one-sided as the rounds did, for a
// duel to count as settled.
const chance = 0.01

// settled reports whether the rounds are on one side of a limit so clearly that
// more of them would hardly change that: the sign test.
func (d duel) settled(limit float64) bool {
	above := 0
	for _, r := range d.ratios() {
		if r > limit {
			above++
		}
	}
	return 2*tail(len(d.ours), min(above, len(d.ours)-above)) < chance
}

// tail is the probability that at most k of n coins show heads.
func tail(n, k int) float64 {
	p := 0.0
	for i := range k + 1 {
		lgn, _ := math.Lgamma(float64(n + 1))
		lgi, _ := math.Lgamma(float64(i + 1))
		lgr, _ := math.Lgamma(float64(n - i + 1))
		p += math.Exp(lgn - lgi - lgr - float64(n)*math.Ln2)
	}
	return min(p, 1)
}

// patience is how many times the rounds that were asked for are made at most.
const patience = 5

// fight makes rounds, and goes on where they do not say whether the bar holds.
// A figure near its limit would else be missed or not as chance has it.
func fight(rounds int, limit float64, so func() duel, round func() error) error {
	for n := 0; n < rounds || n < patience*rounds && !so().settled(limit*slack); n++ {
		if err := round(); err != nil {
			return err
		}
	}
	return nil
}
