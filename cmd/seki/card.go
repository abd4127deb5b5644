package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/kernel"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/uplink"
	"sekimori/starlark"
)

// openCard makes the card nic inside netns, which ends when its container does.
func openCard(netns *os.File, nic *bundle.NIC, mac frame.MAC) (io.ReadWriteCloser, error) {
	return tap.Open(netns, cardConfig(nic, mac))
}

// cardConfig is what the card nic is like from inside.
func cardConfig(nic *bundle.NIC, mac frame.MAC) tap.Config {
	return tap.Config{
		Name: nic.Name, MAC: mac, MTU: nic.MTU, Addrs: nic.Addrs, IPv6: nic.DHCP6, Gateways: nic.Gateways,
		EndsWithNetNS: true, LeaveLoopback: true, // the container's first process sets lo up
	}
}

// inode identifies a namespace; 0 if it cannot be had, which only machines that
// introspect would miss.
func inode(ns *os.File) uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(ns.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// addUplink gives the switch a port to the host.
func (n *network) addUplink(pod, table string, u *bundle.Uplink) error {
	mac, err := frame.ParseMAC(u.MAC)
	if err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	cfg := uplink.Config{Table: table, Name: uplinkName(pod), MAC: mac, Addrs: u.Addrs, Masquerade: u.Masquerade}
	if n.inKernel != nil {
		return n.addKernelUplink(cfg)
	}
	var dev io.ReadWriteCloser
	if os.Geteuid() == 0 {
		dev, err = uplink.Open(cfg)
	} else {
		dev, err = n.userUplink(mac, u.Addrs)
	}
	if err != nil {
		return err
	}
	if err := n.sw.AddPort(nicshadow.PortConfig{Name: uplinkPort, MAC: mac, Device: dev, Trusted: true}); err != nil {
		return errors.Join(fmt.Errorf("uplink: %w", err), dev.Close())
	}
	return nil
}

// addKernelUplink gives the switch of the kernel a port to the host.
func (n *network) addKernelUplink(cfg uplink.Config) error {
	remove, err := uplink.Masquerade(cfg)
	if err != nil {
		return err
	}
	err = n.inKernel.AddCard(kernel.CardConfig{Name: uplinkPort, Trusted: true, Card: uplink.Card(cfg), Closed: remove})
	if err != nil {
		return errors.Join(fmt.Errorf("uplink: %w", err), remove())
	}
	return nil
}

// userUplink is the way out of a user who is not root.
func (n *network) userUplink(mac frame.MAC, addrs []netip.Prefix) (io.ReadWriteCloser, error) {
	program, err := netProgram(n.env)
	if err != nil {
		return nil, err
	}
	return uplink.OpenUser(uplink.UserConfig{Program: program, MAC: mac, Addrs: addrs, Log: n.log})
}

// userUplinkError says why the pod's way out needs root, if it does.
func userUplinkError(pod *starlark.Pod, env func(string) string) error {
	if !pod.Uplink.Masquerade {
		return fmt.Errorf("%s: uplink() without masquerade = True needs root: it makes a network interface on the host\n    sudo seki run %[1]s, or uplink(masquerade = True), which then is connections of your own", pod.Path)
	}
	_, err := netProgram(env)
	return err
}

// netProgram is the path of seki-net: SEKI_NET, else beside this program.
func netProgram(env func(string) string) (string, error) {
	path := env("SEKI_NET")
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), "seki-net")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("uplink: without root it needs seki-net beside seki: %w\n    make build makes both; SEKI_NET names another", err)
	}
	return path, nil
}

// uplinkPort is the name of the port to the host; no container can have it.
const uplinkPort = "(uplink)"

// uplinkName is the host's name for the pod's interface: the pod's, where the
// kernel's 15 bytes allow it.
func uplinkName(pod string) string {
	if name := "seki-" + pod; len(name) < unix.IFNAMSIZ {
		return name
	}
	return fmt.Sprintf("seki-%08x", crc32.ChecksumIEEE([]byte(pod)))
}

// cleanUpNetwork removes what the data path of a killed supervisor left.
// Its record is the name of the table.
func cleanUpNetwork(_ context.Context, _ string, record json.RawMessage) error {
	if len(record) == 0 {
		return nil
	}
	var table string
	if err := json.Unmarshal(record, &table); err != nil {
		return fmt.Errorf("record of the network: %w", err)
	}
	return uplink.RemoveTable(nil, table)
}
