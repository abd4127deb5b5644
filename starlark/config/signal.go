package config

import (
	"slices"
	"strings"

	"sekimori/starlark/args"
)

// workloadSignals are the signals a workload may be sent by name, signal(7).
var workloadSignals = []string{"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1",
	"SEGV", "USR2", "PIPE", "ALRM", "TERM", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH", "IO", "PWR"}

// parseSignal checks a signal's name and returns it without "SIG".
func parseSignal(given string) (string, error) {
	name := strings.TrimPrefix(strings.ToUpper(given), "SIG")
	if !slices.Contains(workloadSignals, name) {
		return "", args.Hinted("known are "+strings.Join(workloadSignals, ", "),
			"unknown signal %q%s", given, args.DidYouMean(name, workloadSignals))
	}
	return name, nil
}
