// Package asjson writes JSON objects field by field, byte for byte as
// encoding/json would: that one first looks at each type of the program by
// reflection, 0.3 ms of every start, for a dozen lines of state and events.
//
//	o := asjson.Begin(256)
//	o.Uint("seq", e.Seq)
//	o.Time("time", e.Time)
//	line, err := o.End()
//
// The methods whose names end in Opt leave a field out if its value is the zero
// one, as the options omitempty and omitzero do.
package asjson

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// An Object is a JSON object under construction. Keys are the caller's own
// constants: they are not escaped.
type Object struct {
	b   []byte
	err error // the first
}

// Begin returns an empty object with room for so many bytes.
func Begin(room int) *Object {
	return &Object{b: append(make([]byte, 0, room), '{')}
}

// End returns the object, or the error of a value that has no form in JSON: a
// time after the year 9999, or a raw one that is none.
func (o *Object) End() ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	return append(o.b, '}'), nil
}

func (o *Object) key(k string) {
	if len(o.b) > 1 {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, k...)
	o.b = append(o.b, '"', ':')
}

// Int adds an integer.
func (o *Object) Int(k string, n int64) {
	o.key(k)
	o.b = strconv.AppendInt(o.b, n, 10)
}

// IntOpt is Int, unless n is 0.
func (o *Object) IntOpt(k string, n int64) {
	if n != 0 {
		o.Int(k, n)
	}
}

// IntPtrOpt is Int of what n points to, unless n is nil.
func (o *Object) IntPtrOpt(k string, n *int) {
	if n != nil {
		o.Int(k, int64(*n))
	}
}

// Uint adds an integer.
func (o *Object) Uint(k string, n uint64) {
	o.key(k)
	o.b = strconv.AppendUint(o.b, n, 10)
}

// UintOpt is Uint, unless n is 0.
func (o *Object) UintOpt(k string, n uint64) {
	if n != 0 {
		o.Uint(k, n)
	}
}

// TrueOpt adds true, unless v is false.
func (o *Object) TrueOpt(k string, v bool) {
	if v {
		o.key(k)
		o.b = append(o.b, "true"...)
	}
}

// String adds a string.
func (o *Object) String(k, s string) {
	o.key(k)
	o.b = appendString(o.b, s)
}

// StringOpt is String, unless s is empty.
func (o *Object) StringOpt(k, s string) {
	if s != "" {
		o.String(k, s)
	}
}

// Strings adds an array of strings; null if it is nil.
func (o *Object) Strings(k string, list []string) {
	o.key(k)
	if list == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.b = append(o.b, '[')
	for i, s := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendString(o.b, s)
	}
	o.b = append(o.b, ']')
}

// StringsOpt is Strings, unless the list is empty.
func (o *Object) StringsOpt(k string, list []string) {
	if len(list) > 0 {
		o.Strings(k, list)
	}
}

// Time adds a time, in the form of RFC 3339.
func (o *Object) Time(k string, t time.Time) {
	o.key(k)
	b, err := t.MarshalJSON()
	if err != nil && o.err == nil {
		o.err = err
	}
	o.b = append(o.b, b...)
}

// TimeOpt is Time, unless t is the zero one.
func (o *Object) TimeOpt(k string, t time.Time) {
	if !t.IsZero() {
		o.Time(k, t)
	}
}

// Raw adds a value that is JSON already; null if it is nil.
func (o *Object) Raw(k string, v json.RawMessage) {
	o.key(k)
	if v == nil {
		o.b = append(o.b, "null"...)
		return
	}
	var compact, escaped bytes.Buffer
	if err := json.Compact(&compact, v); err != nil {
		if o.err == nil {
			o.err = err
		}
		return
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	o.b = append(o.b, escaped.Bytes()...)
}

// RawOpt is Raw, unless v is empty.
func (o *Object) RawOpt(k string, v json.RawMessage) {
	if len(v) > 0 {
		o.Raw(k, v)
	}
}

// Array adds an array of n values; value returns each as JSON.
func (o *Object) Array(k string, n int, value func(i int) ([]byte, error)) {
	o.key(k)
	o.b = append(o.b, '[')
	for i := range n {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		v, err := value(i)
		if err != nil && o.err == nil {
			o.err = err
		}
		o.b = append(o.b, v...)
	}
	o.b = append(o.b, ']')
}

// appendString appends s as a JSON string. Nearly all that is written here is
// plain ASCII; what is not is the library's.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil { // cannot be: a string always has a form
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
