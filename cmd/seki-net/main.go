// Seki-net is the way out of a pod's switch without root, started by seki where a
// file has an uplink: package usernet at the other end of a socket pair, which is
// descriptor 3. It ends with it.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	glog "gvisor.dev/gvisor/pkg/log"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/usernet"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "seki-net:", err)
		os.Exit(1)
	}
}

// switchFD is the end of the socket pair, a frame a message.
const switchFD = 3

func run(args []string) error {
	cfg := usernet.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	f := flag.NewFlagSet("seki-net", flag.ContinueOnError)
	f.Func("mac", "the gateway's hardware `address`", func(s string) (err error) {
		cfg.MAC, err = frame.ParseMAC(s)
		return err
	})
	f.Func("addr", "an `address` of the gateway, with the length of its prefix; several times", func(s string) error {
		p, err := netip.ParsePrefix(s)
		cfg.Addrs = append(cfg.Addrs, p)
		return err
	})
	f.IntVar(&cfg.MTU, "mtu", 1500, "longest packet in `bytes`")
	resolv := f.String("resolv", "/etc/resolv.conf", "`file` that names the host's resolver")
	if err := f.Parse(args); err != nil {
		return err
	}
	if cfg.MAC == (frame.MAC{}) || len(cfg.Addrs) == 0 || f.NArg() > 0 {
		return errors.New("it is started by seki: want -mac and -addr, and the switch at descriptor 3")
	}
	if kind, err := unix.GetsockoptInt(switchFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return errors.New("it is started by seki: descriptor 3 is not the switch")
	}
	unix.CloseOnExec(switchFD)
	if err := unix.SetNonblock(switchFD, true); err != nil {
		return err
	}
	// Nothing that the containers' frames do to it shall gain more than it has.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	glog.SetLevel(glog.Warning) // of packets that are dropped here it need not tell
	cfg.Resolver = resolver(*resolv)
	return usernet.Serve(context.Background(), os.NewFile(switchFD, "switch"), cfg)
}

// resolver is the first that the file names (resolv.conf(5)), if there is one.
func resolver(file string) (r netip.AddrPort) {
	f, err := os.Open(file)
	if err != nil {
		return r
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil {
			return netip.AddrPortFrom(a, 53)
		}
	}
	return r
}
