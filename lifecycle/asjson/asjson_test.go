package asjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sekimori/lifecycle/asjson"
)

// all has a field for each method; its tags say the same.
type all struct {
	I   int64           `json:"i"`
	IO  int64           `json:"io,omitempty"`
	P   *int            `json:"p,omitempty"`
	U   uint64          `json:"u"`
	UO  uint64          `json:"uo,omitempty"`
	B   bool            `json:"b,omitempty"`
	S   string          `json:"s"`
	SO  string          `json:"so,omitempty"`
	L   []string        `json:"l"`
	LO  []string        `json:"lo,omitempty"`
	T   time.Time       `json:"t"`
	TO  time.Time       `json:"to,omitzero"`
	R   json.RawMessage `json:"r"`
	RO  json.RawMessage `json:"ro,omitempty"`
	Sub []sub           `json:"sub"`
}

type sub struct {
	S string `json:"s"`
}

func (a *all) encode() ([]byte, error) {
	o := asjson.Begin(0)
	o.Int("i", a.I)
	o.IntOpt("io", a.IO)
	o.IntPtrOpt("p", a.P)
	o.Uint("u", a.U)
	o.UintOpt("uo", a.UO)
	o.TrueOpt("b", a.B)
	o.String("s", a.S)
	o.StringOpt("so", a.SO)
	o.Strings("l", a.L)
	o.StringsOpt("lo", a.LO)
	o.Time("t", a.T)
	o.TimeOpt("to", a.TO)
	o.Raw("r", a.R)
	o.RawOpt("ro", a.RO)
	o.Array("sub", len(a.Sub), func(i int) ([]byte, error) {
		o := asjson.Begin(0)
		o.String("s", a.Sub[i].S)
		return o.End()
	})
	return o.End()
}

// same fails unless both encodings are one, or both are errors.
func same(t *testing.T, a *all) {
	t.Helper()
	want, werr := json.Marshal(a)
	got, err := a.encode()
	if (err == nil) != (werr == nil) || string(got) != string(want) {
		t.Errorf("got  %s, %v\nwant %s, %v", got, err, want, werr)
	}
}

func TestSameAsLibrary(t *testing.T) {
	n, zero := -7, 0
	odd := "tab\t nul\x00 quote\" back\\ <b>&amp; \u2028 \u2029 é \xff\xc3 \x7f 🙂"
	same(t, &all{Sub: []sub{}})
	same(t, &all{I: -1 << 63, IO: 1, P: &n, U: 1<<64 - 1, UO: 1, B: true, S: odd, SO: odd, L: []string{}, LO: []string{odd, "", "plain"},
		T: time.Unix(1, 5).In(time.FixedZone("x", -3600)), TO: time.Now(), R: json.RawMessage(` { "a" : [ 1 , "<" ] } `), RO: json.RawMessage("1"), Sub: []sub{{odd}, {""}}})
	same(t, &all{P: &zero, L: []string{"a"}, LO: []string{}, R: json.RawMessage(`"\u2028"`), Sub: []sub{{"x"}}})
	for _, r := range []string{"", "{", "nul", `"\x"`, "1 2", "\xff"} { // no JSON
		same(t, &all{Sub: []sub{}, R: json.RawMessage(r)})
	}
	for _, year := range []int{-1, 0, 9999, 10000} { // RFC 3339 has four digits
		same(t, &all{Sub: []sub{}, T: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
}

func FuzzSameAsLibrary(f *testing.F) {
	f.Add("a,b", "<", []byte(`{"a":1}`), int64(5), uint64(7), int64(1e18))
	f.Add("", "\xff", []byte("null"), int64(0), uint64(0), int64(-1))
	f.Fuzz(func(t *testing.T, list, s string, raw []byte, i int64, u uint64, at int64) {
		n := int(i)
		l := strings.Split(list, ",")
		same(t, &all{I: i, IO: i, P: &n, U: u, UO: u, B: u&1 == 1, S: s, SO: s, L: l, LO: l, T: time.Unix(0, at), TO: time.Unix(at, 0),
			R: raw, RO: raw, Sub: []sub{{s}}})
	})
}
