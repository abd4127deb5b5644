// Package reference is the reference of the language, made from the tables that
// bind arguments and name predicates, and the documentation of a user's own
// modules, made from their docstrings. So neither can drift from what runs.
package reference

import (
	"fmt"
	"slices"
	"strings"

	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
	"sekimori/starlark/policytest"
	"sekimori/starlark/value"
)

// A Section is a group of entries under a title.
type Section struct {
	Title   string
	Doc     string
	Entries []Entry
}

// An Entry documents one name.
type Entry struct {
	Name string
	// Signature is how it is written; empty for what is no call.
	Signature string
	Doc       string
	Params    []Param
	// Result names the type that a call returns.
	Result string
}

// A Param is one argument.
type Param struct{ Name, Type, Default, Doc string }

// Language is the whole reference.
func Language() []Section {
	functions, constants := value.Reference()
	return []Section{
		{"Containers", "What a file describes. Nothing runs while it is evaluated.", builtins(config.Builtins())},
		{"Values", "Addresses, networks and ports compare, and are searched with in; never with a string by accident.", docs(functions)},
		{"Policies", policyDoc, policies()},
		{"Predicates", predicateDoc, predicates()},
		{"Guards", "What is dropped before any predicate is asked. guard = [\"ra\"] switches one off, guard = \"off\" all.", guards()},
		{"Lifecycle", "Points for on = {...}; each callback gets ctx.", points()},
		{"ctx", "What a callback sees and touches of its container.", contextEntries()},
		{"Frames", "Builders of frames for tests; what is left out comes from the card that sends.", builtins(frames.Builtins())},
		{"Tests", "The argument t of test functions, and what reads inputs.", builtins(append(policytest.Methods(), policytest.Inputs()...))},
		{"Constants", "", append(docs(constants), lists...)},
	}
}

// lists are the constants that are lists.
var lists = []Entry{
	{Name: "DEFAULT_CAPABILITIES", Doc: "The capabilities of a container that names none."},
	{Name: "DEFAULT_MASKED_PATHS", Doc: "The paths under /proc and /sys that are hidden, to add to."},
	{Name: "DEFAULT_READONLY_PATHS", Doc: "The paths under /proc and /sys that are read-only, to add to."},
}

const policyDoc = `A frame goes on only if every predicate that judges it says yes, at least one of the network or transport layer judges it, and no layer that the policy speaks about is left unspoken for it.`

const predicateDoc = `A predicate is a function named after the frames it judges; its parameters are fields, bound by name. Parameters with a default that are no field are constants.`

// builtins are the entries of a table.
func builtins(table []*args.Builtin) []Entry {
	var out []Entry
	for _, b := range table {
		e := Entry{Name: b.Name, Doc: b.Doc, Result: b.Result}
		var words []string
		for _, p := range b.Params {
			d := p.Default
			if p.Required {
				d = ""
				words = append(words, p.Name)
			}
			e.Params = append(e.Params, Param{p.Name, p.Type.Name, d, p.Doc})
		}
		if len(words) < len(b.Params) {
			words = append(words, "...")
		}
		e.Signature = b.Name + "(" + strings.Join(words, ", ") + ")"
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func docs(ds []value.Doc) []Entry {
	var out []Entry
	for _, d := range ds {
		out = append(out, Entry{Name: d.Name, Signature: d.Signature, Doc: d.Doc})
	}
	return out
}

func policies() []Entry {
	var params []Param
	for _, p := range policy.Predicates() {
		params = append(params, Param{p.Name, "a function, True or False", "None", "judges " + p.Judges})
	}
	return []Entry{{
		Name: "policy", Signature: "policy(allow_arp, allow_tcp, ..., allow_icmp = True)", Result: "policy",
		Doc: "Predicates compiled into one program: functions by position, known by their names, and functions or constants by name.",
		Params: append(params,
			Param{"egress", "a list of functions, or a dict from name to function, True or False", "[]", "more predicates of what the container sends: those by position and by name are, too"},
			Param{"ingress", "a list of functions, or a dict from name to function, True or False", "all of it passes", "predicates of what the container is sent, judged at its card, by the same three layers and without guards"},
			Param{"mode", `"enforce" or "audit"`, `"enforce"`, "audit records the verdict and forwards"},
			Param{"budget", "an integer of at least 1", "None", "steps that a frame may take at most; a policy that may take more does not compile"},
			Param{"guard", `"on", "off" or a list of guards to switch off`, `"on"`, "what is dropped before any predicate"}),
	}}
}

// questions are what a predicate can ask besides the fields of the frame.
var questions = []Entry{
	{
		Name: "rate", Signature: "rate(spec, burst = None)", Result: "True or False",
		Doc: "A token bucket of the container's: True, and a token less, while there is one. It stays full where the predicate does not ask. A frame that asks twice gets one answer; a reload goes on with the bucket of an equal rate() in a function of the same name.",
		Params: []Param{
			{"spec", "a string", "", `how many and for how long: "100/s", "30/m", "5/h"`},
			{"burst", "an integer of at least 1", "the number of spec", "how many may come at once"},
		},
	},
	{Name: "established", Signature: "established()", Result: "True or False", Doc: "The frame belongs to a flow of which the other side sent, and was let through: TCP in the last two hours, UDP in the last three minutes, an echo request in the last 30 seconds. A container remembers 4,096 flows and requests; the one not seen for longest is put out, and what is put out is not established."},
	{Name: "answered", Signature: "answered()", Result: "True or False", Doc: "The ARP reply, neighbour or router advertisement answers what the other side really asked: in the last three seconds, a router in the last ten."},
	{
		Name: "audit", Signature: "audit(predicate)", Result: "a predicate", Doc: "In policy(): what the predicate would drop is recorded, and goes on.",
		Params: []Param{{"predicate", "a function, True or False", "", "the predicate"}},
	},
}

func predicates() []Entry {
	var out []Entry
	for _, p := range policy.Predicates() {
		out = append(out, Entry{Name: p.Name, Signature: "def " + p.Name + "(...)", Doc: "Judges " + p.Judges + ". Fields: " + strings.Join(p.Params, ", ") + ".", Result: "True or False"})
	}
	return append(out, questions...)
}

func guards() []Entry {
	names, drops := policy.Guards()
	var out []Entry
	for _, n := range names {
		out = append(out, Entry{Name: "guard " + n, Doc: "Drops " + drops[n] + "."})
	}
	return out
}

func points() []Entry {
	var out []Entry
	for _, p := range config.Points() {
		out = append(out, Entry{Name: p.Name, Doc: sentence(p.Doc)})
	}
	return out
}

// contextDocs say what each attribute of ctx is.
var contextDocs = map[string]string{
	"event":       "What led to the call where the point alone does not say it: the signal's name, why a frame dropped.",
	"exec":        "ctx.exec(args) runs a command inside the container and waits: a struct of status, stdout, stderr.",
	"exit_status": "The workload's exit status, 128 + n after signal n; None while it runs.",
	"kill":        "ctx.kill(signal = \"TERM\") sends a signal to the workload.",
	"log":         "ctx.log(msg, key = value, ...) records a message among the pod's events.",
	"name":        "The container's name.",
	"pid":         "The workload's process id as the host counts; 0 if there is none.",
	"pod":         "ctx.pod.containers are the containers of the pod, each a ctx of its own, by name.",
	"policy":      "ctx.policy.load(p) puts a policy in force, whole; ctx.policy.mode(m) is \"enforce\" or \"audit\"; ctx.policy.stats() is a dict of counters: frames, bytes, forwarded, dropped, would_drop, delivered, refused (by the ingress policy), and under the name of each predicate the frames it said no to.",
}

func contextEntries() []Entry {
	var out []Entry
	for _, name := range config.ContextAttributes() {
		out = append(out, Entry{Name: "ctx." + name, Doc: contextDocs[name]})
	}
	return out
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// Find is the entry of that name, "container" or "t.drops"; the error says what
// was meant.
func Find(sections []Section, name string) (*Entry, error) {
	var known []string
	for _, s := range sections {
		for i := range s.Entries {
			if s.Entries[i].Name == name {
				return &s.Entries[i], nil
			}
			known = append(known, s.Entries[i].Name)
		}
	}
	return nil, fmt.Errorf("%q: nothing of that name%s", name, args.DidYouMean(name, known))
}
