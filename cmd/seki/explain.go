package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sekimori/nicshadow/replay"
	"sekimori/starlark"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	source
	name, pcap, drop, format string
	number                   int
}

func (a *app) explainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain FILE (--pcap CAPTURE | --drop EVENTS)",
		Short: "say why frames pass or drop",
		Long: `Explain judges frames by the policies of FILE, and prints for each its fields,
the tests on the way, the guard that each belongs to, and the line that decided.
It needs no root and sends nothing.

--pcap takes a capture, pcap or pcapng, also gzipped. One that seki run --pcap
wrote names the container of each frame; for others, --container says who sends.

--drop takes events of a running pod (seki events --json; - is standard input)
and explains the frames that dropped there. A program that is not the one of
then, because FILE has changed, is said to be another.`,
		Example: "  seki explain examples/arp_guard.star -c mallory --pcap testdata/pcap/arpspoof.pcap --frame 3\n" +
			"  seki events --json arp_guard | seki explain examples/arp_guard.star --drop -",
		Args: args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.explain(cmd.Context(), args[0], o) }
	o.source.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.name, "container", "c", "", "the container that sends; may be left out if there is one only, or if the frames say it")
	f.StringVar(&o.pcap, "pcap", "", "the capture")
	f.StringVar(&o.drop, "drop", "", "events with frames that dropped, as seki events --json prints them")
	f.IntVar(&o.number, "frame", 0, "explain only the frame of this number, from 1")
	f.StringVar(&o.format, "format", "text", "text, or json: one object a line")
	jsonFlag(f, &o.format)
	oneOf(cmd, "format", "text", "json")
	a.completeContainerOf(cmd, &o.source)
	return cmd
}

func (a *app) explain(ctx context.Context, file string, o explainOptions) error {
	switch {
	case o.format != "text" && o.format != "json":
		return usage("--format %q: want text or json", o.format)
	case o.pcap == "" && o.drop == "":
		return usage("explain: want --pcap CAPTURE or --drop EVENTS: the frames to explain")
	case o.pcap != "" && o.drop != "":
		return usage("explain: --pcap and --drop: want one of them")
	}
	pod, err := a.load(ctx, file, o.source)
	if err != nil {
		return err
	}
	x := explainer{app: a, pod: pod, name: o.name, json: o.format == "json", by: map[string]*replay.Explainer{}}
	if o.drop != "" {
		return x.drops(o.drop)
	}
	frames, err := replay.Open(o.pcap)
	if err != nil && !errors.Is(err, replay.ErrCut) {
		return err
	}
	if o.number != 0 {
		if o.number < 1 || o.number > len(frames) {
			return usage("--frame %d: %s has frames 1 to %d", o.number, o.pcap, len(frames))
		}
		frames = frames[o.number-1 : o.number]
	}
	// What a capture that is cut short does hold is explained all the same.
	return errors.Join(x.frames(frames), err)
}

// An explainer explains frames of the containers of one pod.
type explainer struct {
	*app
	pod  *starlark.Pod
	name string // of the container; "" for what the frame says
	json bool
	n    int
	by   map[string]*replay.Explainer // by container
}

// of is the explainer of a container; said is who sent the frame as far as the
// recording knows.
func (x *explainer) of(said string) (*replay.Explainer, error) {
	name := x.name
	if _, err := container(x.pod, said); name == "" && said != "" && err == nil {
		name = said
	}
	if e := x.by[name]; e != nil {
		return e, nil
	}
	c, err := judgedBy(x.pod, name)
	if err != nil {
		return nil, err
	}
	x.by[name] = replay.NewExplainer(c.Program, x.pod.Line)
	return x.by[name], nil
}

func (x *explainer) frames(frames []replay.Frame) error {
	for i := range frames {
		e, err := x.of(frames[i].Interface)
		if err != nil {
			return err
		}
		if err := x.show(e.Explain(&frames[i])); err != nil {
			return err
		}
	}
	return nil
}

// show prints one explanation.
func (x *explainer) show(e *replay.Explanation) error {
	if x.json {
		lines := json.NewEncoder(x.stdout)
		lines.SetEscapeHTML(false)
		return lines.Encode(e)
	}
	if x.n++; x.n > 1 {
		fmt.Fprintln(x.stdout)
	}
	return e.WriteText(x.stdout)
}
