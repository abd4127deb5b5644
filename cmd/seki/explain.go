package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sekimori/nicshadow/replay"
)

func (a *app) explainCommand() *cobra.Command {
	var src source
	var name, pcap, format string
	var number int
	cmd := &cobra.Command{
		Use:   "explain FILE --pcap CAPTURE",
		Short: "say why recorded frames pass or drop",
		Long: `Explain judges each frame of a capture (pcap or pcapng, also gzipped) by the
policy of one container, and prints its fields, the tests on the way and the
line that decided. It needs no root and sends nothing.`,
		Example: "  seki explain examples/arp_guard.star -c mallory --pcap testdata/pcap/arpspoof.pcap --frame 3",
		Args:    args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format != "text" && format != "json" {
			return usage("--format %q: want text or json", format)
		}
		if pcap == "" {
			return usage("explain: want --pcap CAPTURE: the frames to explain")
		}
		pod, c, err := a.judged(cmd.Context(), args[0], src, name)
		if err != nil {
			return err
		}
		frames, err := replay.Open(pcap)
		if err != nil && !errors.Is(err, replay.ErrCut) {
			return err
		}
		if number != 0 {
			if number < 1 || number > len(frames) {
				return usage("--frame %d: %s has frames 1 to %d", number, pcap, len(frames))
			}
			frames = frames[number-1 : number]
		}
		// What a capture that is cut short does hold is explained all the same.
		return errors.Join(a.explain(replay.NewExplainer(c.Program, pod.Line), frames, format == "json"), err)
	}
	src.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&name, "container", "c", "", "the container that sends; may be left out if there is one only")
	f.StringVar(&pcap, "pcap", "", "the capture")
	f.IntVar(&number, "frame", 0, "explain only the frame of this number, from 1")
	f.StringVar(&format, "format", "text", "text, or json: one object a line")
	jsonFlag(f, &format)
	return cmd
}

func (a *app) explain(x *replay.Explainer, frames []replay.Frame, asJSON bool) error {
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	for i := range frames {
		e := x.Explain(&frames[i])
		if asJSON {
			if err := lines.Encode(e); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := e.WriteText(a.stdout); err != nil {
			return err
		}
	}
	return nil
}
