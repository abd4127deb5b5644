package frames

import (
	"errors"
	"fmt"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/replay"
)

// maxRecorded bounds what one pcap() brings into a test.
const maxRecorded = 100_000

// Open reads a recording, pcap or pcapng, packed by gzip or not. A recording
// that ends inside a frame gives the frames before it.
func Open(path string) (*starlark.List, error) {
	recorded, err := replay.Open(path)
	if err != nil && !errors.Is(err, replay.ErrCut) {
		return nil, err
	}
	if len(recorded) > maxRecorded {
		return nil, fmt.Errorf("%s: %d frames, more than %d", path, len(recorded), maxRecorded)
	}
	out := make([]starlark.Value, 0, len(recorded))
	for _, r := range recorded {
		text := fmt.Sprintf("%s: frame %d", path, r.Number)
		if r.Comment != "" {
			text += fmt.Sprintf(" (%q)", r.Comment)
		}
		if len(r.Data) < r.Length {
			return nil, fmt.Errorf("%s: holds %d of %d bytes: record with a larger snap length", text, len(r.Data), r.Length)
		}
		out = append(out, Raw(r.Data, text))
	}
	return starlark.NewList(out), nil
}
