package nicshadow

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A RecordNote is what a record keeps of the judgement of a frame: the comment
// of its packet.
type RecordNote struct {
	// Verdict is what the program said: "forward", "drop" or "audit".
	Verdict string
	// Program is the SHA-256 of the program that judged, in hex.
	Program string
	// Ingress says that the frame was on its way to the container.
	Ingress bool
}

// String is the note as it stands in a comment.
func (n RecordNote) String() string {
	way := "egress"
	if n.Ingress {
		way = "ingress"
	}
	return fmt.Sprintf("seki-record verdict=%s program=%s way=%s", n.Verdict, n.Program, way)
}

// ParseRecordNote reads a comment; ok is false where it is no note.
func ParseRecordNote(comment string) (n RecordNote, ok bool) {
	words := strings.Fields(comment)
	if len(words) == 0 || words[0] != "seki-record" {
		return n, false
	}
	for _, w := range words[1:] {
		key, v, _ := strings.Cut(w, "=")
		switch key {
		case "verdict":
			n.Verdict = v
		case "program":
			n.Program = v
		case "way":
			n.Ingress = v == "ingress"
		}
	}
	return n, n.Verdict != "" && n.Program != ""
}

// note is the note of a captured frame.
func (f *captured) note() RecordNote {
	h := f.judgement.Program.Hash()
	return RecordNote{f.judgement.Outcome.Verdict.String(), hex.EncodeToString(h[:]), f.ingress}
}
