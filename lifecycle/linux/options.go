package linux

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the options of an OCI mount, sorted by what they are for.
type mountOptions struct {
	set, clear  uint64 // MOUNT_ATTR_* of the mount itself
	rset, rclr  uint64 // of the mount and all below it
	bind, rec   bool
	idmap       bool
	propagation uint64   // MS_PRIVATE and its like; 0 for none
	data        []string // for the file system: KEY or KEY=VALUE
}

type attrOption struct {
	set, clear uint64
}

// atime options exclude each other: the field is cleared whole.
func atime(v uint64) attrOption { return attrOption{set: v, clear: unix.MOUNT_ATTR__ATIME} }

// attrOptions are the options that are attributes of a mount; each has a
// recursive form with an r in front (OCI runtime-spec 1.3, config, mounts).
var attrOptions = map[string]attrOption{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"noatime": atime(unix.MOUNT_ATTR_NOATIME), "relatime": atime(unix.MOUNT_ATTR_RELATIME), "strictatime": atime(unix.MOUNT_ATTR_STRICTATIME),
	"atime": atime(unix.MOUNT_ATTR_RELATIME), "norelatime": atime(unix.MOUNT_ATTR_STRICTATIME), "nostrictatime": atime(unix.MOUNT_ATTR_RELATIME),
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	"rprivate": unix.MS_PRIVATE | unix.MS_REC, "rslave": unix.MS_SLAVE | unix.MS_REC, "rshared": unix.MS_SHARED | unix.MS_REC, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// parseOptions sorts options; later ones win. What is not known is data for
// the file system, whose business it is to refuse it.
func parseOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		if a, ok := attrOptions[opt]; ok {
			o.set = o.set&^a.clear | a.set
			o.clear = o.clear&^a.set | a.clear
			continue
		}
		if a, ok := attrOptions[strings.TrimPrefix(opt, "r")]; ok && strings.HasPrefix(opt, "r") {
			o.rset = o.rset&^a.clear | a.set
			o.rclr = o.rclr&^a.set | a.clear
			continue
		}
		if p, ok := propagations[opt]; ok {
			o.propagation = p
			continue
		}
		switch opt {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.rec = true, true
		case "idmap", "ridmap":
			o.idmap = true
		case "defaults", "async", "":
		case "sync", "dirsync", "lazytime", "mand":
			o.data = append(o.data, opt)
		case "tmpcopyup":
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// fsData splits data into the pairs that fsconfig takes, and checks sizes.
func fsData(data []string) ([][2]string, error) {
	var kv [][2]string
	for _, d := range data {
		k, v, ok := strings.Cut(d, "=")
		if k == "" || ok && v == "" {
			return nil, fmt.Errorf("mount option %q", d)
		}
		kv = append(kv, [2]string{k, v})
	}
	return kv, nil
}
