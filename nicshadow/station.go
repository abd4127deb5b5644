package nicshadow

// A station is a card behind a port: an address, and whose it is. A shared
// port has one for each of its members; besides, each port has one of its own,
// which of a shared port stands for those that nobody could name.
type station struct {
	port *port
	name string
	// sender is who is judged; 0 on a trusted port, and for a shared port's own.
	sender Sender
	mac    uint64
	// addrs are what the guest's kernel may say in this card's name.
	addrs addrSet
	// envelope holds besides the sender's program; nil for none.
	envelope *tally

	drops   *DropSource
	capture *CaptureSource
	record  *CaptureSource
	live    *CaptureSource // of the last live capture; see take
}

func (p *port) newStation(name string, s Sender, mac uint64, envelope *tally) *station {
	st := &station{port: p, name: name, sender: s, mac: mac, envelope: envelope}
	if l := p.sw.cfg.DropLog; l != nil {
		st.drops = l.Source(name)
	}
	if c := p.sw.cfg.Capture; c != nil {
		st.capture = c.Source(name)
	}
	if c := p.sw.cfg.Record; c != nil {
		st.record = c.Source(name)
	}
	return st
}

// bind shows the envelope's counters in the sender's.
func (st *station) bind() {
	if st.envelope != nil {
		st.port.sw.cfg.Table.bind(st.sender, st.envelope)
	}
}

func (st *station) unbind() {
	if st.envelope != nil {
		st.port.sw.cfg.Table.unbind(st.sender, st.envelope)
	}
}

// no allocation, no lock, no log below this line

// slot is where the station's frames are counted; nil if the table has
// forgotten its sender.
func (st *station) slot() *slot {
	if st.sender == 0 {
		return st.port.own
	}
	return st.port.sw.cfg.Table.slot(st.sender)
}

// open is the slot of a station that takes frames: a trusted port, or a sender
// with a program in force.
func (st *station) open() *slot {
	sl := st.slot()
	if sl == nil || !st.port.trusted && sl.force.Load().program == nil {
		return nil
	}
	return sl
}

func (st *station) count(r Reason) {
	if sl := st.slot(); sl != nil {
		sl.dropped[r].Add(1)
	}
}

// refuse drops a frame that no program judges.
func (st *station) refuse(b []byte, r Reason) {
	st.count(r)
	st.port.judgement.Sender = st.sender
	st.port.judgement.refuse(r)
	st.tell(b)
}

// deliverable reports whether to's own policy lets the frame b of st in. It
// counts, and tells, what it does not.
func (st *station) deliverable(to *station, sl *slot, b []byte) bool {
	p := st.port
	j := &p.inbound
	j.Program = nil // until one judges
	passes := to.arrives(sl, b, &p.judgement.Key, j)
	if st.record != nil && j.Program != nil {
		st.record.offer(to.name, b, j, true)
	}
	if !passes {
		st.count(ReceiverRefuses)
	}
	if (!passes || j.Reason != Allowed) && st.drops != nil {
		st.drops.offer(to.name, b, &p.judgement.Key, j)
	}
	return passes
}

// tell offers a frame that did not go on, or would not have, to the drop log
// and the capture.
func (st *station) tell(b []byte) {
	if st.drops != nil {
		st.drops.Offer(b, &st.port.judgement)
	}
	if st.capture != nil {
		st.capture.Offer(b, &st.port.judgement)
	}
}
