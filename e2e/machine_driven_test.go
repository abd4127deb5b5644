package e2e_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// TestMachineDriven is who owns the guest's kernel, as far as a card can tell: root of
// the guest takes the card from its driver and drives it himself (testdata/inside,
// drive.go), with every ring that breaks a rule, registers written at random, and
// frames that change while they are judged. The host goes on, nobody hears a frame
// that the sender's program does not pass, and the card works for who keeps to the
// rules.
//
// What a module of the guest's kernel could do beyond that is to lie in the kernel's
// own structures, which own cards do not depend on, and shared ones only within the
// envelope ([TestMachineOwned]); package introspect is fuzzed with such lies.
func TestMachineDriven(t *testing.T) {
	if !onKVM() {
		t.Skip("needs ", kvmKernel, ": e2e/nested runs it")
	}
	requireMachine(t, "root")
	for _, c := range machineNICs {
		t.Run(c.name, func(t *testing.T) {
			// A second processor changes frames while the first kicks.
			l := newMachineLAN(t, lanFile(strings.Replace(c.machine, "cpu = 1", "cpu = 2", 1), allowEverything, c.may))
			before := l.stats(lanPod)
			card := "3" // behind the agent's device and the cards of alice and bob
			if c.name == "shared" {
				card = "1"
			}
			drive := []string{"machine", "shell", lanPod, filepath.Join(l.dir, "tools/inside"), "drive", card}
			words := append(slices.Clone(drive), hex.EncodeToString(l.mallory.marker(alice)))
			forged := uint64(0)
			for _, v := range allVariants() {
				if v.hostile {
					words = append(words, hex.EncodeToString(v.frame))
					forged++
				}
			}
			t.Log(l.must(words...))
			if c.name == "shared" {
				nobodys(t, l, before)
			} else {
				mallorys(t, l, drive, forged)
			}
			if lies := l.lies(t); len(lies) > 0 {
				t.Error(lies)
			}
		})
	}
}

// mallorys: her card is still her card, whoever drives it.
func mallorys(t *testing.T, l *machineLAN, drive []string, forged uint64) {
	// Alice has more to hear than her socket holds: she begins before bob's marker
	// comes, behind which there is nothing of the attack.
	m := l.bob.marker(alice)
	sent := make(chan error, 1)
	time.AfterFunc(patience(50*time.Millisecond), func() { sent <- l.bob.send(m) })
	heard, err := l.alice.until(m)
	if err = errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	may, err := compile(mallory, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	program, err := rule.Decode(may)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range heard {
		b, err := hex.DecodeString(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b[6:12], bob.mac[:]) {
			continue // bob asks whether she is still there, as neighbours do
		}
		var k frame.Key
		if why := frame.Parse(b, &k); why != frame.OK || program.Run(&k).Verdict != rule.Forward {
			t.Errorf("alice heard %s: parsed %v, judged %v", f, why, program.Run(&k))
		}
	}
	st := l.stats(lanPod)["mallory"]
	t.Logf("alice heard %d frames; mallory's: %d, of which dropped %d: %v", len(heard), st.Frames, st.Dropped, st.reasons())
	for why, least := range map[string]uint64{"bad descriptor": 5, "bad offload header": 2} {
		if st.reasons()[why] < least {
			t.Errorf("dropped for %s: %d; want %d at least", why, st.reasons()[why], least)
		}
	}
	if st.Dropped < forged {
		t.Errorf("%d frames dropped; %d were forged", st.Dropped, forged)
	}
	last := l.mallory.marker(alice)
	l.must(append(drive, hex.EncodeToString(last))...)
	if _, err := l.alice.until(last); err != nil {
		t.Errorf("by the rules: %v", err)
	}
}

// nobodys: what the kernel's driver did not send has no sender.
func nobodys(t *testing.T, l *machineLAN, before map[string]figures) {
	for name, is := range l.stats(lanPod) {
		if was := before[name]; is.Forwarded > was.Forwarded+20 { // of their own, until the card was taken
			t.Errorf("%s: %d frames forwarded, before %d", name, is.Forwarded, was.Forwarded)
		}
	}
	if n, _ := l.nobodys(lanPod); n < 50 {
		t.Errorf("%d frames dropped as nobody's", n)
	}
}
