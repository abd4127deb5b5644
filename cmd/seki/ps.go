package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
)

// psReport is what `ps --json` prints.
type psReport struct {
	Pods []podReport `json:"pods"`
}

type podReport struct {
	Name       string            `json:"name"`
	Pid        int               `json:"pid,omitempty"` // the supervisor's, while it runs
	Status     string            `json:"status"`        // running, warm: a machine without containers yet, ended, or dead: its supervisor was killed
	Created    time.Time         `json:"created"`
	Source     string            `json:"source,omitempty"`
	Machine    string            `json:"machine"`
	ExitStatus *int              `json:"exit_status"`
	Containers []containerReport `json:"containers"`
}

type containerReport struct {
	Name       string    `json:"name"`
	Status     string    `json:"status"` // creating, created, running or stopped
	Pid        int       `json:"pid,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	ExitStatus *int      `json:"exit_status"`
}

func (a *app) psCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "ps",
		Short:   "list pods and their containers",
		Example: "  seki ps -a --json",
		Args:    args(0, 0, "no arguments"),
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		return a.listPods(asJSON, func(e store.Entry, _ podReport) bool { return all || e.Live })
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "pods that have ended, too")
	return cmd
}

// listPods prints the pods that show keeps.
func (a *app) listPods(asJSON bool, show func(store.Entry, podReport) bool) error {
	entries, err := a.pods()
	if err != nil {
		return err
	}
	report := psReport{Pods: []podReport{}}
	for _, e := range entries {
		if r := describe(e); show(e, r) {
			report.Pods = append(report.Pods, r)
		}
	}
	if asJSON {
		return a.printJSON(report)
	}
	return a.printPods(report)
}

func describe(e store.Entry) podReport {
	r := podReport{Name: e.Name, Status: "dead", Machine: string(bundle.MachineHost), Containers: []containerReport{}}
	switch {
	case e.Live:
		r.Status = "running"
	case e.State != nil && e.State.Ended():
		r.Status = "ended"
	}
	if e.State == nil {
		return r
	}
	if e.Live {
		r.Pid = e.State.Supervisor
		if e.State.Held != nil && len(e.State.Containers) == 0 {
			r.Status = "warm"
		}
	}
	if e.State.Machine != "" {
		r.Machine = e.State.Machine
	}
	r.Created, r.Source, r.ExitStatus = e.State.Created, e.State.Source, e.State.ExitStatus
	for _, c := range e.State.Containers {
		r.Containers = append(r.Containers, containerReport{c.Name, c.Status, c.Pid, c.Started, c.ExitStatus})
	}
	return r
}

func (a *app) printPods(report psReport) error {
	t := newTable(a.stdout)
	t.row("POD", "CONTAINER", "STATUS", "MACHINE", "PID", "AGE")
	for _, p := range report.Pods {
		if len(p.Containers) == 0 {
			t.row(p.Name, "-", p.Status, p.Machine, "-", age(p.Created))
		}
		for _, c := range p.Containers {
			status := c.Status
			if c.ExitStatus != nil {
				status += " (" + strconv.Itoa(*c.ExitStatus) + ")"
			}
			if p.Status == "dead" {
				status = "dead"
			}
			pid := "-"
			if c.Pid != 0 && c.ExitStatus == nil {
				pid = strconv.Itoa(c.Pid)
			}
			t.row(p.Name, c.Name, status, p.Machine, pid, age(p.Created))
		}
	}
	return t.Flush()
}

// age is how long ago t was, in its largest unit.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
}
