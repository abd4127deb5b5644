package nicshadow_test

import (
	"os/exec"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap/taptest"
)

// bench of real cards: needs the tools that it runs.
func tools(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			taptest.Missing(t, n, err)
		}
	}
}

func TestPing(t *testing.T) {
	tools(t, "ping")
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	a, _ := newCard(t, sw, 1), newCard(t, sw, 2)
	put(t, table, 1, program(t, rule.Forward, 1))
	put(t, table, 2, program(t, rule.Forward, 1))
	if !a.ping(t, "10.0.0.2", 5) {
		t.Errorf("ping with a policy that forwards: lost")
	}
	put(t, table, 1, program(t, rule.Drop, 7))
	if a.ping(t, "10.0.0.2", 2) {
		t.Errorf("ping with a policy that drops: answered")
	}
	st := stats(t, table, 1)
	t.Logf("%+v", st)
}
