package value

import (
	"slices"
	"strings"
)

// elsewhere are the words that OCI's configuration, Docker, Compose and Kubernetes
// have for what has another name here.
var elsewhere = map[string]string{
	"address": "ip", "cap_add": "capabilities", "caps": "capabilities", "cgroup": "resources", "cmd": "args",
	"command": "args", "cpus": "cpu", "entrypoint": "args", "environment": "env", "hooks": "on", "image": "rootfs",
	"interface": "nic", "labels": "annotations", "limits": "resources", "network": "nic", "networks": "nic",
	"root": "rootfs", "tty": "terminal", "ulimits": "rlimits", "volume": "bind", "volumes": "mounts",
	"workdir": "cwd", "working_dir": "cwd",
}

// Suggest is the known name that name was probably meant to be: what other tools
// call so, the nearest by edit distance, or one that name is a whole word of; ""
// where there is none. Case does not count.
func Suggest(name string, known []string) string {
	name = strings.ToLower(name)
	if s, ok := elsewhere[name]; ok && slices.Contains(known, s) {
		return s
	}
	best, bestDist := "", max(1, len(name)/3)+1
	for _, k := range known {
		if d := distance(name, strings.ToLower(k), bestDist); d < bestDist {
			best, bestDist = k, d
		}
	}
	for _, k := range known {
		if best == "" && slices.Contains(strings.Split(strings.ToLower(k), "_"), name) {
			best = k
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment), or at least limit
// where it is not less than that.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
