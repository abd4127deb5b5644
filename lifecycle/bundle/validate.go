package bundle

import (
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A FieldError is one thing wrong with a [Spec]: the field by its JSON name,
// and why it cannot be.
type FieldError struct {
	Field string
	Msg   string
}

// Error is `FIELD: MSG`.
func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }

// checker collects field errors.
type checker []error

func (c *checker) bad(field, format string, args ...any) {
	*c = append(*c, &FieldError{Field: field, Msg: fmt.Sprintf(format, args...)})
}

// ValidName says whether s may name a container or a pod: 1 to 63 letters,
// digits, underscores, dots and hyphens, the first a letter or digit. Such a
// name is safe as part of a path.
func ValidName(s string) bool {
	return len(s) >= 1 && len(s) <= 63 && alphanumeric(s[0]) && only(s, "_.-")
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// only says whether s consists of letters, digits and the bytes of more.
func only(s, more string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte(more, s[i]) < 0 {
			return false
		}
	}
	return true
}

// Validate reports everything about s that cannot work on any Linux host,
// joined; each error is a [*FieldError]. What only the host can tell (does the
// directory exist?) is not looked at.
func (s *Spec) Validate() error {
	var c checker
	if !ValidName(s.Name) {
		c.bad("name", "%q: want 1 to 63 of [a-zA-Z0-9_.-], the first a letter or digit", s.Name)
	}
	c.root(s)
	c.process(s.OCI.Process)
	c.mounts(s.OCI.Mounts)
	c.hostname("oci.hostname", s.OCI.Hostname)
	c.hostname("oci.domainname", s.OCI.Domainname)
	if s.OCI.Linux == nil {
		c.bad("oci.linux", "missing: without namespaces there is no container")
	} else {
		c.linux(s.OCI.Linux, s.OCI.Hostname != "" || s.OCI.Domainname != "")
	}
	if s.NIC != nil {
		c.nic(s.NIC)
		if s.OCI.Linux != nil && !hasNamespace(s.OCI.Linux, specs.NetworkNamespace) {
			c.bad("nic", "needs a network namespace of the container's own")
		}
	}
	return errors.Join(c...)
}

// root checks where the root file system comes from.
func (c *checker) root(s *Spec) {
	switch s.Root.Kind {
	case RootDir:
		c.absolute("root.path", s.Root.Path)
	case RootHost:
		if s.Root.Path != "" {
			c.bad("root.path", "is for kind %q only", RootDir)
		}
	default:
		c.bad("root.kind", "%q is neither %q nor %q", s.Root.Kind, RootDir, RootHost)
	}
}

// absolute reports a path that is not clean and absolute.
func (c *checker) absolute(field, p string) {
	switch {
	case p == "":
		c.bad(field, "missing")
	case strings.ContainsRune(p, 0):
		c.bad(field, "%q contains a NUL byte", p)
	case len(p) >= 4096:
		c.bad(field, "path of %d bytes, at most 4095", len(p))
	case !path.IsAbs(p):
		c.bad(field, "%q is not absolute", p)
	}
}

// hostname checks what sethostname(2) takes.
func (c *checker) hostname(field, h string) {
	if len(h) > 64 || strings.ContainsRune(h, 0) {
		c.bad(field, "%q: at most 64 bytes, no NUL", h)
	}
}

// process checks arguments, environment, working directory and user.
func (c *checker) process(p *specs.Process) {
	if p == nil {
		c.bad("oci.process", "missing")
		return
	}
	if len(p.Args) == 0 || p.Args[0] == "" {
		c.bad("oci.process.args", "empty: there is nothing to run")
	}
	for i, a := range p.Args {
		if strings.ContainsRune(a, 0) {
			c.bad(fmt.Sprintf("oci.process.args[%d]", i), "%q contains a NUL byte", a)
		}
	}
	for i, e := range p.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			c.bad(fmt.Sprintf("oci.process.env[%d]", i), "%q is not KEY=value", e)
		}
	}
	c.absolute("oci.process.cwd", p.Cwd)
	c.user(p.User)
	c.rlimits(p.Rlimits)
	if a := p.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		c.bad("oci.process.oomScoreAdj", "%d is not in -1000..1000", *a)
	}
	if p.Scheduler != nil || p.IOPriority != nil {
		c.bad("oci.process.scheduler", "scheduling and input/output priorities are not supported")
	}
	if p.ApparmorProfile != "" {
		c.bad("oci.process.apparmorProfile", "AppArmor is not supported")
	}
	if p.SelinuxLabel != "" {
		c.bad("oci.process.selinuxLabel", "SELinux is not supported")
	}
	if p.Capabilities != nil {
		c.capabilities(p.Capabilities)
	}
}

// maxID is the largest user or group id. 2^32-1 means "leave unchanged" to the
// kernel, and ids above 2^31-1 turn negative, and then root, in careless code
// (CVE-2024-40635).
const maxID = 1<<31 - 1

func (c *checker) user(u specs.User) {
	for _, id := range append([]uint32{u.UID, u.GID}, u.AdditionalGids...) {
		if id > maxID {
			c.bad("oci.process.user", "id %d is above %d", id, maxID)
		}
	}
	if _, err := ParseUser(u.Username); err != nil && u.Username != "" {
		c.bad("oci.process.user.username", "%v", err)
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		c.bad("oci.process.user.umask", "%#o is above 0777", *u.Umask)
	}
}

// A UserRef names a user, and perhaps a group, as `USER[:GROUP]`. Each part is
// a name or a number; the number of a part is valid if its name is empty.
type UserRef struct {
	User, Group string // names, empty if given by number
	UID, GID    uint32
	HasGroup    bool
}

// ParseUser parses `USER[:GROUP]`. A part of digits is a number, always: it is
// never looked up as a name (CVE-2016-3697). Signs, leading zeros and numbers
// above 2^31-1 are errors, not other users (CVE-2024-40635, CVE-2026-46680).
func ParseUser(s string) (UserRef, error) {
	var r UserRef
	user, group, has := strings.Cut(s, ":")
	var err error
	if r.User, r.UID, err = parseID("user", user); err != nil {
		return UserRef{}, err
	}
	if !has {
		return r, nil
	}
	r.HasGroup = true
	if r.Group, r.GID, err = parseID("group", group); err != nil {
		return UserRef{}, err
	}
	return r, nil
}

// userName says whether s is a name rather than a number: [a-zA-Z_][a-zA-Z0-9_.-]*$?
func userName(s string) bool {
	s = strings.TrimSuffix(s, "$")
	return len(s) >= 1 && len(s) <= 255 && (s[0] == '_' || alphanumeric(s[0]) && s[0] > '9') && only(s, "_.-")
}

func parseID(what, s string) (name string, id uint32, err error) {
	if userName(s) {
		return s, 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || s != strconv.FormatUint(n, 10) {
		return "", 0, fmt.Errorf("%s %q is neither a name nor a number", what, s)
	}
	if n > maxID {
		return "", 0, fmt.Errorf("%s id %s is above %d", what, s, maxID)
	}
	return "", uint32(n), nil
}

func (c *checker) rlimits(ls []specs.POSIXRlimit) {
	seen := map[string]bool{}
	for i, l := range ls {
		field := fmt.Sprintf("oci.process.rlimits[%d]", i)
		if !slices.Contains(rlimitNames, l.Type) {
			c.bad(field, "unknown limit %q", l.Type)
		}
		if seen[l.Type] {
			c.bad(field, "%s is given twice", l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			c.bad(field, "%s: soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
	}
}

var rlimitNames = []string{
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
}

func (c *checker) capabilities(k *specs.LinuxCapabilities) {
	for set, names := range map[string][]string{
		"bounding": k.Bounding, "effective": k.Effective, "inheritable": k.Inheritable, "permitted": k.Permitted, "ambient": k.Ambient,
	} {
		for _, n := range names {
			if !strings.HasPrefix(n, "CAP_") || n != strings.ToUpper(n) {
				c.bad("oci.process.capabilities."+set, "%q is not the name of a capability (CAP_NET_RAW is one)", n)
			}
		}
	}
	subset := func(a, b string, as, bs []string) {
		for _, n := range as {
			if !slices.Contains(bs, n) {
				c.bad("oci.process.capabilities."+a, "%s is not in the %s set", n, b)
			}
		}
	}
	subset("effective", "permitted", k.Effective, k.Permitted)
	subset("ambient", "permitted", k.Ambient, k.Permitted)
	subset("ambient", "inheritable", k.Ambient, k.Inheritable)
}

func (c *checker) nic(n *NIC) {
	if n.Name == "" || len(n.Name) > 15 || n.Name == "." || n.Name == ".." || n.Name == "lo" || strings.ContainsAny(n.Name, "/ :\t\n\x00") {
		c.bad("nic.name", "%q is not the name of an interface (1 to 15 bytes, no slash, colon or space)", n.Name)
	}
	mac, err := net.ParseMAC(n.MAC)
	switch {
	case err != nil || len(mac) != 6:
		c.bad("nic.mac", "%q is not six octets in colon notation", n.MAC)
	case mac[0]&1 != 0:
		c.bad("nic.mac", "%s is a group address", n.MAC)
	case [6]byte(mac) == [6]byte{}:
		c.bad("nic.mac", "all zero")
	}
	of := func(six bool) (count int) {
		for _, a := range n.Addrs {
			if a.Addr().Is6() == six {
				count++
			}
		}
		for _, g := range n.Gateways {
			if g.Is6() == six {
				count++
			}
		}
		return count
	}
	if n.DHCP && of(false) > 0 {
		c.bad("nic.dhcp", "addresses or gateways beside it")
	}
	if n.DHCP6 && of(true) > 0 {
		c.bad("nic.dhcp6", "addresses or gateways beside it")
	}
	if n.Datapath != "" && n.Datapath != DatapathKernel {
		c.bad("nic.datapath", "%q is none", n.Datapath)
	}
	for i, a := range n.Addrs {
		if !a.IsValid() || a.Addr().IsMulticast() || a.Addr().IsUnspecified() {
			c.bad(fmt.Sprintf("nic.addrs[%d]", i), "%v is not the address of a host", a)
		}
	}
	var v4, v6 int
	for i, g := range n.Gateways {
		switch {
		case !g.IsValid():
			c.bad(fmt.Sprintf("nic.gateways[%d]", i), "not an address")
		case g.Is4():
			v4++
		default:
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		c.bad("nic.gateways", "more than one of an IP version")
	}
	if n.MTU != 0 && (n.MTU < 68 || n.MTU > 65535) {
		c.bad("nic.mtu", "%d is not in 68..65535", n.MTU)
	}
}

func hasNamespace(l *specs.Linux, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}
