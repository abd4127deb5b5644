package main

import (
	"encoding/hex"
	"strings"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/vmm/hypercall"
)

// netStats is what `stats --json` says of a container's card.
type netStats struct {
	Mode    string `json:"mode"`
	Program string `json:"program,omitempty"` // SHA-256, hexadecimal
	// Frames and Bytes are what the container sent. Forwarded, Dropped and
	// WouldDrop (audit mode: forwarded as well) add up to Frames.
	Frames    uint64 `json:"frames"`
	Bytes     uint64 `json:"bytes"`
	Forwarded uint64 `json:"forwarded"`
	Dropped   uint64 `json:"dropped"`
	WouldDrop uint64 `json:"would_drop"`
	Delivered uint64 `json:"delivered"` // frames that the container was sent
	Drops     []drop `json:"drops"`
}

// A drop counts frames that dropped, or would have in audit mode, for one
// reason: a line of the .star file, or a named reason of the data path.
type drop struct {
	Reason string `json:"reason"`
	Kind   string `json:"kind,omitempty"` // of a line: predicate, guard, unspoken, fragment
	Why    string `json:"why,omitempty"`  // which one
	File   string `json:"file,omitempty"`
	Line   uint32 `json:"line,omitempty"`
	Col    uint32 `json:"col,omitempty"`
	Count  uint64 `json:"count"`
	Would  bool   `json:"would"` // audit mode: they went on
}

// podStats is what `stats --json` says of what belongs to no container.
type podStats struct {
	// Unattributed counts frames that dropped because nobody was found to have sent
	// them.
	Unattributed uint64 `json:"unattributed"`
	// Refused counts hypercalls that were refused: who made them may not, or asked for
	// what the guest has no right to.
	Refused uint64 `json:"hypercalls_refused"`
}

func newNetStats(st hypercall.Stats) netStats {
	out := netStats{
		Mode: "enforce", Frames: st.Frames, Bytes: st.Bytes,
		Forwarded: st.Forwarded, Dropped: st.Dropped, WouldDrop: st.WouldDrop, Delivered: st.Delivered,
		Drops: []drop{},
	}
	if st.Mode == hypercall.ModeAudit {
		out.Mode = "audit"
	}
	if st.Program != [hypercall.HashSize]byte{} {
		out.Program = hex.EncodeToString(st.Program[:])
	}
	told := map[string]bool{}
	for _, l := range st.Lines {
		kind, reason := l.Kind, "policy"
		if k, ok := strings.CutPrefix(kind, hypercall.EnvelopeLine); ok {
			kind, reason = k, nicshadow.Envelope.String()
		}
		told[reason] = true
		out.Drops = append(out.Drops, drop{Reason: reason, Kind: kind, Why: l.Name, File: l.File, Line: l.Line, Col: l.Col, Count: l.Frames, Would: l.WouldDrop})
	}
	for _, r := range st.Reasons {
		// The lines say the same of what a program dropped, and where.
		if told[r.Reason] {
			continue
		}
		out.Drops = append(out.Drops, drop{Reason: r.Reason, Count: r.Frames, Would: r.WouldDrop})
	}
	return out
}

// figures are what ctx.policy.stats() gives a callback: the card's counters, and
// how many frames each predicate has said no to, also in audit mode.
func figures(st netStats) map[string]uint64 {
	out := map[string]uint64{
		"frames": st.Frames, "bytes": st.Bytes, "forwarded": st.Forwarded,
		"dropped": st.Dropped, "would_drop": st.WouldDrop, "delivered": st.Delivered, "refused": 0,
	}
	for _, d := range st.Drops {
		switch {
		case d.Kind == rule.WhyPredicate.String():
			out[d.Why] += d.Count
		case d.Reason == nicshadow.Ingress.String() && !d.Would:
			out["refused"] += d.Count
		}
	}
	return out
}
