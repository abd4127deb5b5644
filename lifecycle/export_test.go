package lifecycle

// What the fuzz tests and the tests of tables need from inside.

// DecodeRequest is decodeRequest; it returns what the request says as a value
// that can be compared.
func DecodeRequest(b []byte) (any, error) {
	r, err := decodeRequest(b)
	if r == nil {
		return nil, err
	}
	return *r, err
}

// LogLines runs chunks of output through a lineLog.
func LogLines(chunks ...string) string {
	l := &lineLog{stream: "stdout"}
	var out []byte
	for _, c := range chunks {
		out = append(out, l.add([]byte(c))...)
	}
	return string(append(out, l.end()...))
}
