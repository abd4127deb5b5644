package policytest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/starlark/config"
)

// The files of a recording's directory.
const (
	RecordVersion    = 1
	RecordMetaFile   = "record.json"
	RecordEventsFile = "events.jsonl"
	RecordFramesFile = "frames.pcapng"
)

// A RecordMeta says what was recorded.
type RecordMeta struct {
	Version int    `json:"version"`
	File    string `json:"file"` // the .star file
	Pod     string `json:"pod"`
	// Mode is that of every policy, where the run was told one.
	Mode   string            `json:"mode,omitempty"`
	Params map[string]string `json:"params,omitempty"`
}

// A RecordEvent is a callback that began, or a program that came in force.
type RecordEvent struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	Point     string    `json:"point,omitempty"`
	Callback  string    `json:"callback,omitempty"`
	// Event and ExitStatus are what the callback's ctx said.
	Event      string `json:"event,omitempty"`
	ExitStatus int    `json:"exit_status,omitempty"`
	Program    string `json:"program,omitempty"`
	// Exec is what a command of the callback under way returned: callbacks
	// decide by it.
	Exec *starlark.ExecResult `json:"exec,omitempty"`

	execs []starlark.ExecResult // of a callback, in order
}

// A Note is what a recording keeps of a frame's judgement.
type Note struct {
	Verdict, Program string
	Ingress          bool
}

// ReplayOptions say what to replay.
type ReplayOptions struct {
	Options
	// Dir is the recording.
	Dir string
	// File is judged by; empty means the file that was recorded.
	File string
	// Note reads the comment of a recorded frame; ok is false for what is none.
	Note func(comment string) (n Note, ok bool)
}

// Replay runs the callbacks of a recording again, in their order, and has each
// frame judged by the policies in force then. A verdict that is not the
// recorded one is a failure. There is one test for each container.
func Replay(ctx context.Context, o ReplayOptions) (*Report, error) {
	began := time.Now()
	meta, err := readMeta(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.File == "" {
		o.File = meta.File
	}
	file := &FileReport{Path: o.File}
	report := &Report{Files: []*FileReport{file}}
	pod, err := starlark.Load(ctx, o.File, starlark.Options{Pod: meta.Pod, Params: meta.Params})
	if err != nil {
		file.Err = err
		return report, nil
	}
	r := &replayer{opts: o, by: map[string]*replayed{}}
	cov := newCoverage(o.Coverage)
	if err := r.begin(ctx, pod, cov); err != nil {
		return nil, err
	}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	for _, c := range r.order {
		c.t.end(began)
		file.Tests = append(file.Tests, c.t.report)
	}
	cov.sources(r.suite.session)
	report.Coverage = cov.report()
	report.Duration = time.Since(began)
	file.Duration = report.Duration
	return report, nil
}

func readMeta(dir string) (m RecordMeta, err error) {
	path := filepath.Join(dir, RecordMetaFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s: no recording: %s is not there", dir, RecordMetaFile)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != RecordVersion {
		return m, fmt.Errorf("%s: version %d, want %d", path, m.Version, RecordVersion)
	}
	return m, nil
}

// A replayer goes through a recording.
type replayer struct {
	opts  ReplayOptions
	suite *suite
	world *test // whose lives are those of all containers
	order []*replayed
	by    map[string]*replayed
	began time.Time
}

// A replayed container has two rows of programs: those that were in force when
// it was recorded, and those that the same callbacks load now.
type replayed struct {
	t    *test
	life *life
	then []string
	now  []*compiled
	mem  memory
}

func (r *replayer) begin(ctx context.Context, pod *starlark.Pod, cov *coverage) error {
	s, err := starlark.NewSession(starlark.Options{}, nil)
	if err != nil {
		return err
	}
	s.Know(pod)
	known := &pods{}
	known.took(pod)
	r.suite = &suite{session: s, judge: newJudge(cov), opts: r.opts.Options, pods: known}
	r.world = newTest(r.suite, ctx, "replay", "")
	for _, c := range pod.Containers {
		if c.Spec.NIC == nil {
			continue
		}
		t := newTest(r.suite, ctx, "replay/"+c.Spec.Name, c.Pos.String())
		p := &replayed{t: t, life: r.world.life(c)}
		r.order, r.by[c.Spec.Name] = append(r.order, p), p
		if err := p.follow(r.suite.judge); err != nil {
			return err
		}
	}
	return s.Close()
}

// follow notes the program that is in force now, if it is another.
func (p *replayed) follow(j *judge) error {
	var c *compiled
	if pol := p.life.policy; pol != nil {
		if c = j.compile(pol, sender(p.life.c.Identity())); c.err != nil {
			return c.err
		}
	}
	if n := len(p.now); n == 0 || p.now[n-1] != c {
		p.now = append(p.now, c)
	}
	return nil
}

// A moment of a recording is an event or a frame.
type moment struct {
	at    time.Time
	event *RecordEvent
	frame *replay.Frame
}

// run goes through events and frames in the order of their times; of the same
// time events come first.
func (r *replayer) run(ctx context.Context) error {
	events, err := readEvents(filepath.Join(r.opts.Dir, RecordEventsFile))
	if err != nil {
		return err
	}
	var all []moment
	events = withExecs(events)
	for i := range events {
		all = append(all, moment{events[i].Time, &events[i], nil})
	}
	for _, name := range []string{RecordFramesFile + ".old", RecordFramesFile} {
		frames, err := replay.Open(filepath.Join(r.opts.Dir, name))
		if err != nil && !errors.Is(err, replay.ErrCut) && !(errors.Is(err, fs.ErrNotExist) && name != RecordFramesFile) {
			return err
		}
		for i := range frames {
			all = append(all, moment{frames[i].Time, nil, &frames[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
	if len(all) > 0 {
		r.began = all[0].at
	}
	for _, m := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m.event != nil {
			err = r.event(m.event)
		} else {
			r.frame(m.frame)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withExecs moves what commands returned to the callbacks that ran them. The
// callbacks of one container run one at a time.
func withExecs(events []RecordEvent) []RecordEvent {
	var out []RecordEvent
	under := map[string]int{} // callback under way, by container
	for _, e := range events {
		if e.Exec != nil {
			if i, ok := under[e.Container]; ok {
				out[i].execs = append(out[i].execs, *e.Exec)
			}
			continue
		}
		if e.Callback != "" {
			under[e.Container] = len(out)
		}
		out = append(out, e)
	}
	return out
}

// event runs a callback again, or notes which program came in force then.
func (r *replayer) event(e *RecordEvent) error {
	p := r.by[e.Container]
	if p == nil {
		return nil
	}
	if e.Program != "" {
		p.then = append(p.then, e.Program)
		return nil
	}
	i := slices.IndexFunc(p.life.c.Callbacks, func(cb config.Callback) bool { return cb.Point == e.Point && cb.Name == e.Callback })
	if i < 0 {
		p.t.report.Output = append(p.t.report.Output, fmt.Sprintf("%s: callback %s, which was recorded, is gone", e.Point, e.Callback))
		return nil
	}
	p.life.event, p.life.status, p.life.execs = e.Event, e.ExitStatus, e.execs
	if err := p.life.call(nil, p.life.c.Callbacks[i]); err != nil {
		p.t.report.Output = append(p.t.report.Output, err.Error())
	}
	for _, q := range r.order { // a callback may load the policies of others
		if err := q.follow(r.suite.judge); err != nil {
			return err
		}
	}
	return nil
}

// frame judges a recorded frame again.
func (r *replayer) frame(f *replay.Frame) {
	n, ok := r.opts.Note(f.Comment)
	p := r.by[f.Interface]
	if !ok || p == nil {
		return
	}
	p.t.report.Frames++
	if len(f.Data) < f.Length {
		p.t.add(Failure{Message: fmt.Sprintf("frame %d: only %d of %d bytes were recorded", f.Number, len(f.Data), f.Length)})
		return
	}
	prog := p.inForce(n.Program)
	if prog == nil {
		if n.Verdict != rule.Drop.String() {
			p.t.add(Failure{Message: fmt.Sprintf("frame %d: %s: recorded %s, now drop: no policy is in force", f.Number, replay.Summary(f.Data), n.Verdict)})
		}
		return
	}
	if !slices.Contains(p.t.report.Programs, prog.hash) {
		p.t.report.Programs = append(p.t.report.Programs, prog.hash)
	}
	if p.mem.program != prog.program {
		p.mem.program, p.mem.state = prog.program, prog.program.NewState(p.mem.state)
	}
	res := replay.JudgeAt(prog.program, f, rule.Moment{State: p.mem.state, Now: int64(f.Time.Sub(r.began)) + 1, Ingress: n.Ingress})
	r.suite.judge.cov.trace(prog.program, &res)
	p.t.bench(prog, f.Data)
	if got := res.Verdict().String(); got != n.Verdict {
		r.differs(p, f, n, prog, &res, got)
	}
}

// inForce is the program that judges now what the one with that hash judged
// then: of the row of those in force, the one at the same place. A frame and a
// reload that are close in time may be recorded in either order.
func (p *replayed) inForce(hash string) *compiled {
	at := len(p.then) - 1
	for d := range len(p.then) + 1 {
		for _, i := range []int{at - d, at + d} {
			if i >= 0 && i < len(p.then) && p.then[i] == hash {
				return p.now[min(i, len(p.now)-1)]
			}
		}
	}
	return p.now[len(p.now)-1]
}

// differs records a verdict that is not the recorded one.
func (r *replayer) differs(p *replayed, f *replay.Frame, n Note, prog *compiled, res *replay.Result, got string) {
	fail := Failure{Message: fmt.Sprintf("frame %d: %s: recorded %s, now %s", f.Number, replay.Summary(f.Data), n.Verdict, got)}
	if file, line, col := res.Position(); file != "" {
		fail.Pos = fmt.Sprintf("%s:%d:%d", file, line, col)
		fail.Message += fmt.Sprintf(" by %s: %s", whyText(res), r.suite.session.Line(file, line))
	}
	var b bytes.Buffer
	if err := replay.NewExplainer(prog.program, r.suite.session.Line).Result(res).WriteText(&b); err == nil {
		fail.Details = b.String()
	}
	p.t.add(fail)
}

// readEvents reads the events of a recording. A last line that is cut short was
// being written when the machine stopped.
func readEvents(path string) ([]RecordEvent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []RecordEvent
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var e RecordEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			if !lines.Scan() {
				break
			}
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		out = append(out, e)
	}
	return out, lines.Err()
}
