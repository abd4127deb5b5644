package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sekimori/starlark/policytest"
	"sekimori/starlark/reference"
)

func (a *app) replCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repl [FILE]",
		Short: "try the language, line by line",
		Long: `Repl reads statements and prints what they come to. It knows what test files
know: builders of frames, pcap(), pod(); explain(policy, frame) and
verdict(policy, frame) ask a policy, help NAME looks a name up. With a FILE its
names are there too. Ctrl-C stops a statement, Ctrl-D ends.`,
		Example: `  echo 'verdict(policy(allow_tcp = True), tcp())' | seki repl`,
		Args:    args(0, 1, "one FILE at most"),
	}
	cmd.ValidArgsFunction = starFiles
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file := ""
		if len(args) > 0 {
			file = args[0]
		}
		// The command's own context ends with the first Ctrl-C; here that
		// stops one statement only.
		r, err := policytest.NewRepl(context.WithoutCancel(cmd.Context()), file, a.stdout)
		if err != nil {
			return &codeError{exitUsage, err}
		}
		return errors.Join(a.repl(r), r.Close())
	}
	return cmd
}

// repl runs statements until the input ends or the process is to end.
func (a *app) repl(r *policytest.Repl) error {
	t := &typed{lines: make(chan []byte), interrupted: make(chan struct{}, 1), ended: make(chan struct{}), prompt: a.prompt()}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer close(signals)
	defer signal.Stop(signals)
	go t.listen(signals)
	go t.read(a.stdin)
	failed := false
	for {
		ctx, cancel := context.WithCancel(context.Background())
		t.fresh = true
		err := r.Step(ctx, func() ([]byte, error) { return t.line(a, cancel) })
		t.runs(nil)
		cancel()
		switch {
		case errors.Is(err, io.EOF):
			if failed && t.prompt == nil { // a script, not a person
				return &codeError{code: exitFailed}
			}
			return nil
		case err != nil && !t.dropped:
			failed = true
			a.complain(err)
		}
	}
}

// prompt prints to the terminal that somebody types at; nil if nobody does.
func (a *app) prompt() func(string) {
	f := file(a.stdin)
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func(s string) { fmt.Fprint(a.stderr, s) }
}

// A typed input hands out lines and takes signals.
type typed struct {
	lines       chan []byte
	interrupted chan struct{} // Ctrl-C while a line was typed
	ended       chan struct{} // the process is to end
	prompt      func(string)
	fresh       bool // the next line begins a statement
	dropped     bool // Ctrl-C took back what was typed of the statement

	// mu guards running, which stops the statement that runs; nil if none does.
	mu      sync.Mutex
	running func()
}

// listen takes signals until there are no more.
func (t *typed) listen(signals <-chan os.Signal) {
	for s := range signals {
		t.mu.Lock()
		stop := t.running
		t.mu.Unlock()
		switch {
		case stop != nil:
			stop()
		case s == unix.SIGTERM:
			close(t.ended)
			return
		default:
			select {
			case t.interrupted <- struct{}{}:
			default:
			}
		}
	}
}

// runs says what stops the statement that runs from now on.
func (t *typed) runs(stop func()) {
	t.mu.Lock()
	t.running = stop
	t.mu.Unlock()
}

// read hands over lines until the input ends. It ends with the process: a read
// of a terminal cannot be called off.
func (t *typed) read(in io.Reader) {
	defer close(t.lines)
	b := bufio.NewReader(in)
	for {
		line, err := b.ReadBytes('\n')
		if len(line) > 0 {
			t.lines <- line
		}
		if err != nil {
			return
		}
	}
}

// line is the next line; what runs behind it is ended by stop.
func (t *typed) line(a *app, stop func()) ([]byte, error) {
	t.runs(nil)
	t.dropped = false
	for {
		if t.prompt != nil && t.fresh {
			t.prompt(">>> ")
		} else if t.prompt != nil {
			t.prompt("... ")
		}
		select {
		case <-t.ended:
			return nil, io.EOF
		case <-t.interrupted:
			if t.prompt == nil {
				return nil, io.EOF
			}
			t.prompt("\n")
			t.dropped = true
			return []byte("\n"), errors.New("dropped")
		case line, ok := <-t.lines:
			if !ok {
				return nil, io.EOF
			}
			if name, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "help "); ok && t.fresh {
				a.help(name)
				continue
			}
			t.fresh = false
			t.runs(stop)
			return line, nil
		}
	}
}

// help prints an entry of the reference.
func (a *app) help(name string) {
	e, err := reference.Find(reference.Language(), strings.TrimSpace(name))
	if err == nil {
		err = e.WriteText(a.stdout)
	}
	if err != nil {
		a.complain(fmt.Errorf("help: %w", err))
	}
}
