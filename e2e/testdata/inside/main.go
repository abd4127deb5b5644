// Inside is what the machine tests run in a container: a station that sends,
// hears and looks as it is told on standard input, and the attacker of a guest
// who is root there.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	verbs := map[string]func([]string) error{"idle": idle, "tick": tick, "clock": clock, "station": station, "root": root, "write": write, "race": race, "steal": steal, "reach": reach, "ring": ring, "drive": drive}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: inside VERB [ARG...]")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

// idle waits to be stopped.
func idle([]string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	<-stop
	return nil
}

// tick runs now and then until it is stopped.
func tick([]string) error {
	go func() { // ends with the program
		for range time.Tick(20 * time.Millisecond) {
			unix.Getppid()
		}
	}()
	return idle(nil)
}
