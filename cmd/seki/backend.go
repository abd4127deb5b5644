package main

import (
	"errors"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/vmm/hypercall"
)

// A backend does on a table of senders what hypercalls ask. Packages vmm and
// nicshadow do not know each other, so the words are translated here.
type backend struct{ table *nicshadow.Table }

var _ hypercall.Backend = backend{}

func (b backend) Register(r hypercall.Registration) error {
	return refusal(b.table.Register(nicshadow.Sender(r.Sender), r.Name))
}

func (b backend) Load(sender uint32, program []byte) ([hypercall.HashSize]byte, error) {
	hash, err := b.table.Load(nicshadow.Sender(sender), program)
	return hash, refusal(err)
}

func (b backend) Swap(sender uint32, hash [hypercall.HashSize]byte, m hypercall.Mode) error {
	return refusal(b.table.Swap(nicshadow.Sender(sender), hash, tableMode(m)))
}

func (b backend) SetMode(sender uint32, m hypercall.Mode) error {
	return refusal(b.table.SetMode(nicshadow.Sender(sender), tableMode(m)))
}

// tableMode is the table's word for a mode: what is not audit enforces.
func tableMode(m hypercall.Mode) nicshadow.Mode {
	if m == hypercall.ModeAudit {
		return nicshadow.Audit
	}
	return nicshadow.Enforce
}

func (b backend) Unregister(sender uint32) error {
	return refusal(b.table.Unregister(nicshadow.Sender(sender)))
}

func (b backend) Stats(sender uint32) (hypercall.Stats, error) {
	st, err := b.table.Stats(nicshadow.Sender(sender))
	if err != nil {
		return hypercall.Stats{}, refusal(err)
	}
	out := hypercall.Stats{
		Mode: hypercall.ModeEnforce, Program: st.Program,
		Frames: st.Frames, Bytes: st.Bytes, Forwarded: st.Forwarded, Dropped: st.Dropped, WouldDrop: st.WouldDrop, Delivered: st.Delivered,
	}
	if st.Mode == nicshadow.Audit {
		out.Mode = hypercall.ModeAudit
	}
	for _, r := range st.Reasons {
		out.Reasons = append(out.Reasons, hypercall.ReasonCount{Reason: r.Reason, WouldDrop: r.WouldDrop, Frames: r.Frames})
	}
	for _, l := range st.Lines {
		if l.Envelope {
			l.Kind = hypercall.EnvelopeLine + l.Kind
		}
		out.Lines = append(out.Lines, hypercall.LineCount{
			File: l.File, Line: uint32(l.Line), Col: uint32(l.Col), Kind: l.Kind, Name: l.Why, WouldDrop: l.WouldDrop, Frames: l.Frames,
		})
	}
	return out, nil
}

// refusal gives an error of the table its status.
func refusal(err error) error {
	status := hypercall.StatusRefused
	var bad *rule.VerifyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		status = hypercall.StatusBadProgram
	case errors.Is(err, nicshadow.ErrUnknownSender):
		status = hypercall.StatusUnknownSender
	case errors.Is(err, nicshadow.ErrSenderExists):
		status = hypercall.StatusSenderExists
	case errors.Is(err, nicshadow.ErrNotLoaded):
		status = hypercall.StatusNotLoaded
	}
	return &hypercall.Error{Status: status, Msg: err.Error()}
}
