package p9

import "golang.org/x/sys/unix"

// nobody stands for an owner on the host who has no number in the guest.
const nobody = 65534

// An Owner is a user and a group, by number.
type Owner struct{ UID, GID uint32 }

// An IDRange maps Size consecutive numbers of the guest, from Guest on, to
// those of the host from Host on.
type IDRange struct{ Guest, Host, Size uint32 }

// Owners says how the owners of files look in the guest, and which ones it may
// set.
//
// The zero Owners shows the host's numbers and lets the guest change none: new
// files belong to the user that the server runs as.
//
// With Squash everything belongs to that one owner in the guest, and so does
// what it creates: what an ordinary user on the host wants, whose files all are
// their own, for a container that insists on owning its data.
//
// With UIDs and GIDs numbers are mapped both ways. A new file is given to the
// guest's user where the map has them and the server may (as root); a number
// that the map does not have cannot be set (EPERM) and shows as 65534.
type Owners struct {
	Squash     *Owner
	UIDs, GIDs []IDRange
}

// toGuest returns the number that is shown for a host's.
func toGuest(ranges []IDRange, id uint32) uint32 {
	if len(ranges) == 0 {
		return id
	}
	for _, r := range ranges {
		if id >= r.Host && id-r.Host < r.Size {
			return r.Guest + (id - r.Host)
		}
	}
	return nobody
}

// toHost returns the host's number for one of the guest.
func toHost(ranges []IDRange, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Guest && id-r.Guest < r.Size {
			return r.Host + (id - r.Guest), true
		}
	}
	return 0, false
}

func (o *Owners) shown(host Owner) Owner {
	if o.Squash != nil {
		return *o.Squash
	}
	return Owner{toGuest(o.UIDs, host.UID), toGuest(o.GIDs, host.GID)}
}

// keep is the number that means "leave it" to chown(2), and that no user has.
const keep = 0xffffffff

// chown returns what to set on the host for a guest that asks for want, where
// the file belongs to have. A guest may always ask for what it sees.
func (o *Owners) chown(have, want Owner) (Owner, error) {
	set, seen := Owner{keep, keep}, o.shown(have)
	var ok bool
	if want.UID != keep && want.UID != seen.UID {
		if set.UID, ok = toHost(o.UIDs, want.UID); !ok || o.Squash != nil {
			return Owner{}, unix.EPERM
		}
	}
	if want.GID != keep && want.GID != seen.GID {
		if set.GID, ok = toHost(o.GIDs, want.GID); !ok || o.Squash != nil {
			return Owner{}, unix.EPERM
		}
	}
	return set, nil
}

// created returns what to set on the host for a new file of the guest's owner,
// as far as there is something to set.
func (o *Owners) created(guest Owner) Owner {
	set := Owner{keep, keep}
	if o.Squash != nil {
		return set
	}
	if id, ok := toHost(o.UIDs, guest.UID); ok {
		set.UID = id
	}
	if id, ok := toHost(o.GIDs, guest.GID); ok {
		set.GID = id
	}
	return set
}
