package lifecycle // what is tested has no name outside

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"sekimori/lifecycle/linux"
)

// fill sets every field of the struct that v points to, so that one which an
// encoder forgets shows, also if it is new.
func fill(t *testing.T, v any) {
	t.Helper()
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		name, f := s.Type().Field(i).Name, s.Field(i)
		switch f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(1, int64(i))))
			continue
		case json.RawMessage:
			f.SetBytes([]byte(`{"` + name + `":1}`))
			continue
		case *int:
			f.Set(reflect.ValueOf(&i))
			continue
		case []string:
			f.Set(reflect.ValueOf([]string{name, "<"}))
			continue
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{name: "x", "a": "y"}))
			continue
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(name)
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i) + 1)
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i) + 1)
		case reflect.Bool:
			f.SetBool(true)
		default:
			t.Fatalf("field %s is a %s: what is one that shows?", name, f.Type())
		}
	}
}

// TestEncodersForgetNothing holds what is written by hand against the library.
func TestEncodersForgetNothing(t *testing.T) {
	var plain, fields, none Event
	fill(t, &plain)
	fill(t, &fields)
	plain.Fields = nil
	for _, e := range []*Event{&plain, &fields, &none} {
		line, err := e.line()
		same(t, e, line, err)
	}
	var l, empty LogRecord
	fill(t, &l)
	for _, l := range []*LogRecord{&l, &empty} {
		line, err := l.line()
		same(t, l, line, err)
	}
	var r, zero linux.Record
	fill(t, &r)
	for _, r := range []*linux.Record{&r, &zero} {
		b, err := recordJSON(r)
		same(t, r, b, err)
	}
}

func same(t *testing.T, v any, got []byte, err error) {
	t.Helper()
	want, werr := json.Marshal(v)
	if werr != nil {
		t.Fatal(werr)
	}
	if err != nil || string(got) != string(want) {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
