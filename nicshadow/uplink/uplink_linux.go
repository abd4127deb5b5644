package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/tap"
)

// A Config says what the uplink is like on the host.
type Config struct {
	// Table is the name of the nftables table: see [NewTable].
	Table string
	// Name is the interface's name on the host; at most 15 bytes.
	Name string
	// MAC is the address of the host's end.
	MAC frame.MAC
	// MTU in bytes; 0 means 1500.
	MTU int
	// Addrs are the addresses of the host's end: the containers' gateways.
	Addrs []netip.Prefix
	// Masquerade rewrites the source of what leaves Addrs' prefixes by another
	// interface.
	Masquerade bool
	// NetNS is the host's network namespace; nil for the caller's.
	NetNS *os.File
}

// An Uplink is the pod's end of the host's interface: a device for a trusted
// port of a switch.
type Uplink struct {
	*tap.Device
	cfg   Config
	close func() error
}

// Open makes the interface, and the rest that cfg asks for. On an error
// nothing is left behind.
func Open(cfg Config) (*Uplink, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d, err := tap.Open(cfg.NetNS, Card(cfg))
	if err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	u := &Uplink{Device: d, cfg: cfg}
	u.close = sync.OnceValue(u.remove)
	if cfg.Masquerade {
		if err := cfg.masquerade(); err != nil {
			return nil, errors.Join(fmt.Errorf("uplink: %w", err), u.Close())
		}
	}
	return u, nil
}

// Close removes the table and the interface. Later calls return what the first
// one did.
func (u *Uplink) Close() error { return u.close() }

func (u *Uplink) remove() error {
	var err error
	if u.cfg.Masquerade {
		err = RemoveTable(u.cfg.NetNS, u.cfg.Table)
	}
	return errors.Join(err, u.Device.Close())
}

// Card is the interface on the host.
func Card(cfg Config) tap.Config {
	return tap.Config{Name: cfg.Name, MAC: cfg.MAC, MTU: cfg.MTU, Addrs: cfg.Addrs, KeepIPv6: true}
}

// Masquerade makes what cfg asks for besides the interface, for an uplink whose
// interface is another's to make. remove takes it back.
func Masquerade(cfg Config) (remove func() error, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if !cfg.Masquerade {
		return func() error { return nil }, nil
	}
	remove = func() error { return RemoveTable(cfg.NetNS, cfg.Table) }
	if err := cfg.masquerade(); err != nil {
		return nil, errors.Join(fmt.Errorf("uplink: %w", err), remove())
	}
	return remove, nil
}

func (cfg Config) check() error {
	if cfg.Masquerade && !tableName(cfg.Table) {
		return fmt.Errorf("uplink: table name %q", cfg.Table)
	}
	return nil
}

func (cfg Config) masquerade() error {
	if err := tap.In(cfg.NetNS, func() error { return forwarding(cfg.Addrs) }); err != nil {
		return err
	}
	return addTable(cfg)
}

// forwarding runs in the host's namespace.
func forwarding(addrs []netip.Prefix) error {
	for _, a := range addrs {
		name := "ipv4/ip_forward"
		if a.Addr().Is6() {
			name = "ipv6/conf/all/forwarding"
		}
		b, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		if strings.TrimSpace(string(b)) != "0" {
			continue
		}
		if a.Addr().Is6() {
			return fmt.Errorf("masquerade %v: IPv6 forwarding is off, and turning it on makes the host ignore router advertisements: set net.%s to 1 if that is right here",
				a, strings.ReplaceAll(name, "/", "."))
		}
		if err := tap.Sysctl(name, "1"); err != nil {
			return err
		}
	}
	return nil
}

// tableName reports whether s may name a table: a pod's name with a little
// around it.
func tableName(s string) bool {
	return s != "" && len(s) <= 63+16 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}
