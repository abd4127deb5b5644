package replay

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Source returns a line of a source file, without its newline; "" where it
// is not known. Explanations quote by it.
type Source func(file string, line int) string

// An Explanation says how a program came to its verdict about a frame. Its
// JSON is the output of seki explain --json.
type Explanation struct {
	Number    int       `json:"number"`
	Time      time.Time `json:"time,omitzero"`
	Interface string    `json:"interface,omitempty"`
	Length    int       `json:"length"`
	// Captured is set where the capture holds less of the frame.
	Captured int `json:"captured,omitempty"`
	// Comment is that of the recorded frame: of a capture that seki run wrote,
	// the verdict of then.
	Comment string `json:"comment,omitempty"`
	// Program is the SHA-256 of the program that judged.
	Program string `json:"program"`
	Summary string `json:"summary"`
	Class   string `json:"class"`
	// Verdict is "forward" or "drop". Reason is "allowed", "policy", or why
	// the frame did not parse.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// Why is the deciding line; nil where the frame did not parse.
	Why    *Deciding    `json:"why,omitempty"`
	Fields []FieldValue `json:"fields,omitempty"`
	// Steps are the tests on the way, in order.
	Steps []Step `json:"steps,omitempty"`
}

// A Place is a source line.
type Place struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Col    int    `json:"col,omitempty"`
	Source string `json:"source,omitempty"`
}

// String is "file:line:col", "" where the place is not known.
func (p Place) String() string {
	if p.File == "" {
		return ""
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Col)
}

// Deciding is what decided: see [rule.Why].
type Deciding struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Place
	PC uint32 `json:"pc"`
}

// A FieldValue is a field of the frame that the program could read.
type FieldValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Step is one test.
type Step struct {
	PC int `json:"pc"`
	// Text is the instruction, as in a disassembly.
	Text  string `json:"text"`
	Holds bool   `json:"holds"`
	// Guard names the guard that the test belongs to; "" for a predicate's.
	Guard string `json:"guard,omitempty"`
	Place
}

// An Explainer explains frames by one program.
type Explainer struct {
	program *rule.Program
	hash    string
	source  Source
	insns   map[int]string
	guards  map[int]string // by pc, as far as they were asked for
	story   *story
}

// NewExplainer returns an explainer; source may be nil.
func NewExplainer(p *rule.Program, source Source) *Explainer {
	if source == nil {
		source = func(string, int) string { return "" }
	}
	h := p.Hash()
	return &Explainer{program: p, hash: hex.EncodeToString(h[:]), source: source, insns: insns(p), guards: map[int]string{}, story: newStory(p)}
}

// Explain explains one frame: see [Explainer.Explain].
func Explain(p *rule.Program, f *Frame, source Source) *Explanation {
	return NewExplainer(p, source).Explain(f)
}

// Explain judges a frame and says how the verdict came about. What the program
// remembers it remembers from one call to the next.
func (e *Explainer) Explain(f *Frame) *Explanation {
	r := e.story.judge(f)
	return e.Result(&r)
}

// Result says how the verdict about a frame came about that e's program judged.
func (e *Explainer) Result(r *Result) *Explanation {
	f := r.Frame
	x := &Explanation{
		Program: e.hash, Comment: f.Comment,
		Number: f.Number, Time: f.Time, Interface: f.Interface, Length: max(f.Length, len(f.Data)),
		Summary: brief.Frame(&r.Key, f.Data, max(f.Length, len(f.Data))), Class: r.Key.Class().String(),
		Verdict: r.Verdict().String(), Reason: r.Reason.String(),
	}
	if len(f.Data) < f.Length {
		x.Captured = len(f.Data)
	}
	if r.Reason != frame.OK || r.unjudged() {
		return x
	}
	e.road(x, r)
	return x
}

// Key explains the frame whose fields these are, as a drop log recorded them;
// summary says what it was. What the program remembered then is not recorded:
// it is judged as the first frame.
func (e *Explainer) Key(k *frame.Key, ingress bool, summary string) *Explanation {
	r := Result{Reason: frame.OK, Key: *k, program: e.program, moment: rule.Moment{State: e.program.NewState(nil), Now: 1, Ingress: ingress}}
	r.Outcome = e.program.RunAt(&r.Key, &r.moment)
	x := &Explanation{
		Program: e.hash, Length: int(k.Uint(frame.Length)), Summary: summary, Class: k.Class().String(),
		Verdict: r.Verdict().String(), Reason: r.Reason.String(),
	}
	e.road(x, &r)
	return x
}

// road fills in how the verdict about a frame that parsed came about.
func (e *Explainer) road(x *Explanation, r *Result) {
	x.Reason = "policy"
	if r.Verdict() == rule.Forward {
		x.Reason = "allowed"
	}
	x.Why, x.Fields = e.deciding(r), fields(&r.Key)
	r.Trace(func(pc int, holds bool) {
		if e.program.Insn(uint32(pc)).Op.IsTest() {
			x.Steps = append(x.Steps, Step{PC: pc, Text: e.insns[pc], Holds: holds, Guard: e.guard(pc), Place: e.place(e.program.Position(uint32(pc)))})
		}
	})
}

func (e *Explainer) guard(pc int) string {
	g, ok := e.guards[pc]
	if !ok {
		g = guardOf(e.program, uint32(pc))
		e.guards[pc] = g
	}
	return g
}

func (e *Explainer) deciding(r *Result) *Deciding {
	w := r.Why()
	d := &Deciding{Kind: w.Kind.String(), Name: w.Name, Place: e.place(r.Position()), PC: r.Outcome.PC}
	if w.Kind == rule.WhyInvalid {
		d.Kind, d.Name = "fault", "arithmetic"
	}
	return d
}

func (e *Explainer) place(file string, line, col int) Place {
	if file == "" {
		return Place{}
	}
	return Place{File: file, Line: line, Col: col, Source: strings.TrimSpace(e.source(file, line))}
}

// fields lists the fields that frames of the key's class have.
func fields(k *frame.Key) []FieldValue {
	var all []FieldValue
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if k.Class().Has(f) {
			all = append(all, FieldValue{f.String(), brief.Field(k, f)})
		}
	}
	return all
}

// insns is the text of each instruction, out of the disassembly, whose lines
// are "\ttext @ position\t; pc". Tables are written out as far as maxEntries.
func insns(p *rule.Program) map[int]string {
	m := make(map[int]string, p.Len())
	tables := p.Unit().Tables
	for line := range strings.Lines(rule.Disassemble(p)) {
		text, number, ok := cutLast(strings.TrimSuffix(line, "\n"), "\t; ")
		if pc, err := strconv.Atoi(number); ok && err == nil && strings.HasPrefix(line, "\t") {
			if p.Insn(uint32(pc)).Op.IsTest() {
				text, _, _ = cutLast(text, " else L")
			}
			text = strings.Join(strings.Fields(text), " ")
			if in := p.Insn(uint32(pc)); in.Op == rule.OpTestIn || in.Op == rule.OpTestNotI {
				text = text[:strings.LastIndexByte(text, ' ')+1] + entries(&tables[in.K], frame.Field(in.A))
			}
			m[pc] = text
		}
	}
	return m
}

// maxEntries is how much of a table is written out.
const maxEntries = 4

// entries writes a table of values of field f: "{10.0.0.0/8, 192.0.2.0/24}".
func entries(t *rule.Table, f frame.Field) string {
	var all []string
	for _, v := range t.Values[:min(len(t.Values), maxEntries)] {
		all = append(all, brief.Value(f, v.Hi, v.Lo))
	}
	for _, p := range t.Prefixes[:min(len(t.Prefixes), maxEntries)] {
		all = append(all, brief.Value(f, p.Value.Hi, p.Value.Lo)+"/"+strconv.Itoa(int(p.Bits)))
	}
	if n := t.Len(); n > maxEntries {
		all = append(all, "... "+strconv.Itoa(n)+" in all")
	}
	return "{" + strings.Join(all, ", ") + "}"
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
