package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
)

// captureSize bounds a live capture, in bytes.
const captureSize = 256 << 20

var _ lifecycle.Capturer = (*network)(nil)

// Capture writes the frames that the switch judges to a file.
func (n *network) Capture(file *os.File, container string, drops bool) (func() (uint64, error), error) {
	c, err := nicshadow.NewCapture(nicshadow.CaptureConfig{File: file, Size: captureSize})
	if err != nil {
		return nil, err
	}
	end, err := n.sw.Live(nicshadow.LiveConfig{Capture: c, Container: container, Drops: drops})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return func() (uint64, error) {
		end()
		err := c.Close()
		return c.Missed(), err
	}, nil
}

func (a *app) captureCommand() *cobra.Command {
	var out string
	var drops bool
	cmd := &cobra.Command{
		Use:   "capture (POD | POD/CONTAINER) --output FILE",
		Short: "write the frames of a running pod to a pcapng file",
		Long: `Capture writes each frame that the containers of a running pod send, with its
verdict and the deciding line as comment, until Ctrl-C or the end of the pod.
seki explain --pcap says why, step by step. One capture at a time, of at most
256 MiB; what it had to leave out is counted.`,
		Example: "  seki capture --drops -o drops.pcapng arp_guard/mallory",
		Args:    args(1, 1, "one POD or POD/CONTAINER"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return usage("capture: want --output FILE: where the frames go")
		}
		return a.capture(cmd.Context(), args[0], out, drops)
	}
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "the pcapng file; it must not be there yet")
	f.BoolVar(&drops, "drops", false, "only frames that drop, or would in audit mode")
	cmd.ValidArgsFunction = a.completeContainers
	return cmd
}

func (a *app) capture(ctx context.Context, arg, out string, drops bool) error {
	t := target{pod: arg}
	if _, err := a.lookup(arg); err != nil {
		if t, err = a.find(arg); err != nil {
			return err
		}
	}
	c, err := a.dial(t.pod)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(a.stderr, "seki: capturing to %s; Ctrl-C ends\n", out)
	missed, err := c.Capture(ctx, f, t.container, drops)
	if err != nil {
		return err
	}
	if missed > 0 {
		fmt.Fprintf(a.stderr, "seki: %s not captured\n", count(int(missed), "frame"))
	}
	return nil
}
