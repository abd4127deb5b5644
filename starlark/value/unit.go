package value

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// byteUnits are the units of sizes: powers of 1024 (IEC) and of 1000 (SI).
var byteUnits = map[string]uint64{
	"B":   1,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

// ParseBytes parses a size such as "64MiB", "1.5GiB" or "1500B" into bytes.
// A number without a unit is refused: "64" has been read as bytes and as
// megabytes by different tools.
func ParseBytes(s string) (uint64, error) {
	number, unit := splitUnit(s)
	scale, ok := byteUnits[unit]
	if !ok {
		return 0, fmt.Errorf("size %q: want a number and a unit such as \"64MiB\" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)", s)
	}
	if n, err := strconv.ParseUint(number, 10, 64); err == nil {
		over, v := bits.Mul64(n, scale)
		if over != 0 || v > math.MaxInt64 {
			return 0, fmt.Errorf("size %q: too large", s)
		}
		return v, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || strings.ContainsAny(number, "eExXpPnN_+") {
		return 0, fmt.Errorf("size %q: %q is not a number", s, number)
	}
	if v := f * float64(scale); v < math.MaxInt64 {
		return uint64(v), nil
	}
	return 0, fmt.Errorf("size %q: too large", s)
}

// ParseDuration parses a length of time such as "250ms", "10s" or "1m30s". It
// is never negative, and a number without a unit is refused.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || s == "0" || strings.HasPrefix(s, "+") {
		return 0, fmt.Errorf("duration %q: want a number and a unit such as \"250ms\" (us, ms, s, m, h)", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("duration %q: negative", s)
	}
	return d, nil
}

// splitUnit cuts s behind its number.
func splitUnit(s string) (number, unit string) {
	i := strings.LastIndexAny(s, "0123456789.")
	return s[:i+1], s[i+1:]
}
