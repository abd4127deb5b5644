package lifecycle

import (
	"bytes"
	"strings"
	"time"

	"sekimori/lifecycle/asjson"
)

// maxLine is the longest line of output that is kept in one piece.
const maxLine = 16 << 10

// A LogRecord is one line of a container's log.
type LogRecord struct {
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"`            // "stdout" or "stderr"
	Line    string    `json:"line"`              // without its end
	Partial bool      `json:"partial,omitempty"` // the line goes on in the next record of this stream
}

// line is the record as JSON: what json.Marshal would return.
func (r *LogRecord) line() ([]byte, error) {
	o := asjson.Begin(96 + len(r.Line))
	o.Time("time", r.Time)
	o.String("stream", r.Stream)
	o.String("line", r.Line)
	o.TrueOpt("partial", r.Partial)
	return o.End()
}

// A lineLog turns output into LogRecords.
type lineLog struct {
	stream  string
	partial []byte
}

// add returns the records of the lines that end in b.
func (l *lineLog) add(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		n := i
		if i < 0 {
			n = len(b)
		}
		if room := maxLine - len(l.partial); n > room {
			l.partial = append(l.partial, b[:room]...)
			out, b = l.record(out, true), b[room:]
			continue
		}
		l.partial = append(l.partial, b[:n]...)
		if i < 0 {
			break
		}
		out, b = l.record(out, false), b[n+1:]
	}
	return out
}

// end returns the record of a last line without an end.
func (l *lineLog) end() []byte {
	if len(l.partial) == 0 {
		return nil
	}
	return l.record(nil, false)
}

func (l *lineLog) record(out []byte, partial bool) []byte {
	r := LogRecord{Time: time.Now(), Stream: l.stream, Line: strings.TrimSuffix(string(l.partial), "\r"), Partial: partial}
	l.partial = l.partial[:0]
	b, err := r.line()
	if err != nil { // cannot be: a time of this century and strings
		return out
	}
	return append(append(out, b...), '\n')
}
