package store // what is tested has no name outside

import (
	"encoding/json"
	"testing"
	"time"
)

// TestEncodeForgetsNothing holds the encoder against the library, with every
// field set and with none.
func TestEncodeForgetsNothing(t *testing.T) {
	n, at := 3, time.Unix(1, 2)
	// Without names: a field that is added must be set here, too.
	full := State{
		1, "a", "b<", "c", 4, at, at, true, &n, json.RawMessage(`{"d":1}`), &Container{Name: "h", Status: "i", IDBase: 7},
		[]Container{{"e", "f", 5, 6, at, at, at, &n, true, json.RawMessage(`["g"]`)}, {}},
	}
	for _, s := range []State{full, {}, {Containers: []Container{}}} {
		got, err := s.encode()
		want, werr := json.Marshal(s)
		if err != nil || werr != nil || string(got) != string(want) {
			t.Errorf("got  %s, %v\nwant %s, %v", got, err, want, werr)
		}
	}
	b, err := full.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeState(b, "a")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.encode(); err != nil || string(again) != string(b) {
		t.Errorf("read back: %s, %v\nwant %s", again, err, b)
	}
}
