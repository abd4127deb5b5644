package rule

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sekimori/nicshadow/frame"
)

// formatConst writes c as a value of a field of kind k.
func formatConst(c Const, k frame.Kind) string {
	switch {
	case k == frame.KindIPv6:
		return formatIPv6(c)
	case c.Hi != 0:
		return fmt.Sprintf("0x%x%016x", c.Hi, c.Lo)
	case k == frame.KindIPv4 && c.Lo>>32 == 0:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(c.Lo))
		return netip.AddrFrom4(b).String()
	case k == frame.KindMAC && c.Lo>>48 == 0:
		return frame.MACFromUint64(c.Lo).String()
	}
	return strconv.FormatUint(c.Lo, 10)
}

func formatIPv6(c Const) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], c.Hi)
	binary.BigEndian.PutUint64(b[8:], c.Lo)
	// An IPv4-mapped address has dots; as an address of 128 bits it reads back.
	return netip.AddrFrom16(b).String()
}

// formatMasked writes value under mask as a value of field f: alone under a
// full mask, as a prefix, or as value&mask.
func formatMasked(value, mask Const, f frame.Field) string {
	v, width := formatConst(value, f.Kind()), uint8(f.Width())
	n := maskBits(mask)
	switch {
	case n == width:
		return v
	case f.Kind() == frame.KindInt || f.Kind() == frame.KindBool:
		return fmt.Sprintf("%#x&%#x", value.Lo, mask.Lo)
	case mask == prefixMask(n, width):
		return v + "/" + strconv.Itoa(int(n))
	}
	return v + "&" + formatConst(mask, f.Kind())
}

// parseConst reads a number, a MAC, an IPv4 or an IPv6 address.
func parseConst(s string) (Const, error) {
	if mac, err := frame.ParseMAC(s); err == nil {
		return Const{Lo: mac.Uint64()}, nil
	}
	if strings.ContainsAny(s, ".:") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return Const{}, fmt.Errorf("%q is no address", s)
		}
		if a.Is4() {
			b := a.As4()
			return Const{Lo: uint64(binary.BigEndian.Uint32(b[:]))}, nil
		}
		b := a.As16()
		return Const{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}, nil
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok && len(hex) > 16 && len(hex) <= 32 {
		hi, err1 := strconv.ParseUint(hex[:len(hex)-16], 16, 64)
		lo, err2 := strconv.ParseUint(hex[len(hex)-16:], 16, 64)
		if err1 == nil && err2 == nil {
			return Const{hi, lo}, nil
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return Const{}, fmt.Errorf("%q is no number, MAC or address", s)
	}
	return Const{Lo: n}, nil
}

// parseMasked reads what formatMasked writes.
func parseMasked(s string, width uint8) (value, mask Const, err error) {
	if v, m, ok := strings.Cut(s, "&"); ok {
		if value, err = parseConst(v); err == nil {
			mask, err = parseConst(m)
		}
		return value, mask, err
	}
	v, n, ok := strings.Cut(s, "/")
	value, err = parseConst(v)
	if err != nil {
		return value, mask, err
	}
	count := width
	if ok {
		c, err := strconv.ParseUint(n, 10, 8)
		if err != nil || c > uint64(width) {
			return value, mask, fmt.Errorf("%q is no prefix of %d bits", s, width)
		}
		count = uint8(c)
	}
	if width == 0 {
		return value, mask, fmt.Errorf("%q of a field without width", s)
	}
	return value, prefixMask(count, width), nil
}
