package replay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
)

// Fields are the fields of a parsed frame by name, as a drop log records them.
func Fields(k *frame.Key) map[string]string {
	m := map[string]string{}
	for _, f := range fields(k) {
		m[f.Name] = f.Value
	}
	return m
}

// ParseKey makes the key of a frame from its class and its fields, as [Fields]
// wrote them. Fields that are left out are 0.
func ParseKey(class string, values map[string]string) (*frame.Key, error) {
	c, ok := frame.ClassNamed(class)
	if !ok {
		return nil, fmt.Errorf("class %q: unknown", class)
	}
	k := &frame.Key{}
	k.SetClass(c)
	for name, v := range values {
		f, ok := frame.FieldNamed(name)
		if !ok || !c.Has(f) {
			return nil, fmt.Errorf("field %q: not of class %s", name, class)
		}
		hi, lo, err := parseValue(f, v)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		k.Set(f, hi, lo)
		if got := brief.Field(k, f); got != v {
			return nil, fmt.Errorf("field %s: %q is out of range", name, v)
		}
	}
	return k, nil
}

// parseValue is the inverse of [brief.Value].
func parseValue(f frame.Field, v string) (hi, lo uint64, err error) {
	switch f.Kind() {
	case frame.KindMAC:
		m, err := frame.ParseMAC(v)
		return 0, m.Uint64(), err
	case frame.KindIPv4, frame.KindIPv6:
		a, err := netip.ParseAddr(v)
		if err != nil {
			return 0, 0, err
		}
		b := a.As16()
		if f.Kind() == frame.KindIPv4 {
			return 0, uint64(binary.BigEndian.Uint32(b[12:])), nil
		}
		return binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), nil
	case frame.KindBool:
		b, err := strconv.ParseBool(v)
		if b {
			lo = 1
		}
		return 0, lo, err
	}
	lo, err = strconv.ParseUint(v, 0, 64)
	return 0, lo, err
}
