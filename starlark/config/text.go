package config

import "strings"

// isWord reports whether s begins with a letter or digit and goes on with
// letters, digits and the bytes of more, at most most bytes in all.
func isWord(s, more string, most int) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && (i == 0 || strings.IndexByte(more, s[i]) < 0) {
			return false
		}
	}
	return len(s) > 0 && len(s) <= most
}

func isAlnum(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// isName is the rule for container names, bundle.Spec.Name.
func isName(s string) bool { return isWord(s, "_.-", 63) }

// isHostname is wider than RFC 1123, 2.1 by "_", which container names may hold.
func isHostname(s string) bool { return isName(s) && isAlnum(s[len(s)-1]) }

// isInterface follows dev_valid_name() of the kernel, narrowed to plain names.
func isInterface(s string) bool {
	return isWord(s, "_-", 15) && (s[0] < '0' || s[0] > '9') && s != "lo"
}

// isCPUList is the list format of cpuset(7): "0-3,6".
func isCPUList(s string) bool {
	for _, part := range strings.Split(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isNumber(first) || isRange && !isNumber(last) {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}
