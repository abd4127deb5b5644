package kernel

import (
	"errors"
	"fmt"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/tap"
)

// Supported says why this kernel, or the caller's rights to it, cannot do what
// this package needs; nil where it can. It makes a card between two namespaces
// that nobody sees, attaches its programs, and forgets it: what is asked for is
// not a version but that it works.
func Supported() (err error) {
	fabric, err := ebpf.NewFabric(1, reasons)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fabric.Close()) }()
	yard, err := tap.NewNetNS()
	if err != nil {
		return err
	}
	defer yard.Close()
	inside, err := tap.NewNetNS()
	if err != nil {
		return err
	}
	defer inside.Close()
	mac := frame.MAC{2, 0, 0, 0, 0, 1}
	pair, err := tap.OpenPair(inside, yard, "far", tap.Config{Name: "eth0", MAC: mac})
	if err != nil {
		return err
	}
	return tap.In(yard, func() error {
		return tap.FarUp(pair.Far(), func(device int) error {
			card, err := fabric.Open(ebpf.CardConfig{Device: device, MAC: mac, Limit: maxHeader + 1500})
			if err != nil {
				return fmt.Errorf("programs of a card: %w", err)
			}
			return card.Close()
		})
	})
}
