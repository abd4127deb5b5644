package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
)

// statsReport is what `stats --json` prints.
type statsReport struct {
	Pod        string           `json:"pod"`
	Containers []containerStats `json:"containers"`
	podStats
}

type containerStats struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Pid    int    `json:"pid,omitempty"`
	lifecycle.Stats
	Net   *netStats `json:"net,omitempty"` // absent without a card
	Error string    `json:"error,omitempty"`
}

func (a *app) statsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats POD",
		Short: "count frames and what became of them, memory and time",
		Long: `Stats prints, for each container of a running pod, the frames that it sent and
what became of them: those that dropped with the line of the file that decided,
or the reason why no line was asked. "would drop" is what audit mode let go on.
Below stands what belongs to no container: frames whose sender was not found, and
hypercalls of a machine that were refused.`,
		Example: "  seki stats arp_guard",
		Args:    args(1, 1, "one POD"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.lookup(args[0]); err != nil {
			return err
		}
		c, err := a.dial(args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		all, network, err := c.PodStats(cmd.Context())
		if err != nil {
			return err
		}
		report := statsReport{Pod: args[0], Containers: []containerStats{}}
		if network != nil {
			if err := json.Unmarshal(network, &report.podStats); err != nil {
				return fmt.Errorf("counters of the pod: %w", err)
			}
		}
		for _, s := range all {
			r := containerStats{Name: s.Name, Status: string(s.Status), Pid: s.Pid, Stats: s.Stats, Error: s.Error}
			if len(s.Network) > 0 {
				if err := json.Unmarshal(s.Network, &r.Net); err != nil {
					return fmt.Errorf("counters of %q: %w", s.Name, err)
				}
			}
			report.Containers = append(report.Containers, r)
		}
		if asJSON {
			return a.printJSON(report)
		}
		return a.printStats(report)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = a.completePods
	return cmd
}

func (a *app) printStats(report statsReport) error {
	t := newTable(a.stdout)
	t.row("CONTAINER", "POLICY", "FRAMES", "BYTES", "FORWARDED", "DROPPED", "WOULD DROP", "MEMORY", "CPU", "PIDS")
	for _, c := range report.Containers {
		cpu := time.Duration(c.CPUNanos).Round(time.Millisecond).String()
		n := c.Net
		if n == nil {
			t.row(c.Name, "-", "-", "-", "-", "-", "-", size(c.MemoryBytes), cpu, fmt.Sprint(c.Pids))
			continue
		}
		t.row(c.Name, n.Mode, fmt.Sprint(n.Frames), size(n.Bytes), fmt.Sprint(n.Forwarded), fmt.Sprint(n.Dropped), fmt.Sprint(n.WouldDrop),
			size(c.MemoryBytes), cpu, fmt.Sprint(c.Pids))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range report.Containers {
		if c.Error != "" {
			fmt.Fprintf(a.stderr, "seki: %s: %s\n", c.Name, c.Error)
		}
		if c.Net == nil || len(c.Net.Drops) == 0 {
			continue
		}
		fmt.Fprintf(a.stdout, "\n%s\n", c.Name)
		for _, d := range c.Net.Drops {
			verb := "dropped"
			if d.Would {
				verb = "would drop"
			}
			t.row(fmt.Sprintf("  %d", d.Count), verb, d.what(), d.where())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if n := report.Unattributed; n > 0 {
		fmt.Fprintf(a.stdout, "\nnobody's: %s dropped, whose sender was not found\n", count(int(n), "frame"))
	}
	if n := report.Refused; n > 0 {
		fmt.Fprintf(a.stdout, "\nthe machine: %s refused\n", count(int(n), "hypercall"))
	}
	return nil
}

// what names the reason of a drop.
func (d drop) what() string {
	if d.Kind == "" {
		return d.Reason
	}
	return ruledBy(d.Reason) + because(d.Kind, d.Why)
}

// ruledBy says whose line decided, if not the policy's.
func ruledBy(reason string) string {
	if reason == nicshadow.Envelope.String() {
		return "envelope: "
	}
	return ""
}

// where is the line that decided, if one did.
func (d drop) where() string {
	if d.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", d.File, d.Line, d.Col)
}

// because says in words why a program decided: the kind of reason, and which.
func because(kind, why string) string {
	switch kind {
	case "guard":
		return "guard " + why
	case "unspoken":
		return "no predicate for " + why
	case "fragment":
		return why + " needs a field that a later fragment does not carry"
	}
	return why
}

// size is a number of bytes in the largest binary unit that it fills.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
