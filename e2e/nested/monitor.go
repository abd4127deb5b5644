package nested

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// processor is what QEMU says of L1's processor: its registers, and its interrupt
// controller's.
func (m *Machine) processor() string {
	conn, err := net.Dial("unix", m.path("monitor"))
	if err != nil {
		return "QEMU has ended"
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second)) // an error shows below
	// QEMU Machine Protocol: each side's values follow each other.
	_, err = io.WriteString(conn, `{"execute": "qmp_capabilities"}`)
	for _, c := range []string{"info registers", "info lapic"} {
		err = errors.Join(err, json.NewEncoder(conn).Encode(monitorCommand(c)))
	}
	said, rerr := replies(conn, 2)
	if err = errors.Join(err, rerr); err != nil {
		said += "QEMU's monitor: " + err.Error()
	}
	return said
}

func monitorCommand(line string) any {
	type args struct {
		Line string `json:"command-line"`
	}
	return struct {
		Execute   string `json:"execute"`
		Arguments args   `json:"arguments"`
	}{"human-monitor-command", args{line}}
}

// replies reads n replies, but for the registers that say nothing of where a
// processor stands.
func replies(r io.Reader, n int) (string, error) {
	var all strings.Builder
	for in := json.NewDecoder(r); n > 0; {
		var v struct{ Return any }
		if err := in.Decode(&v); err != nil {
			return all.String(), err
		}
		text, ok := v.Return.(string)
		if !ok {
			continue // a greeting, an event
		}
		n--
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "FPR") && !strings.HasPrefix(line, "YMM") && strings.TrimSpace(line) != "" {
				all.WriteString(line)
			}
		}
	}
	return all.String(), nil
}
