package config

import (
	"crypto/sha256"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/args"
	"sekimori/starlark/policy"
)

// localKey is where a thread keeps its collector.
const localKey = "seki.collector"

// A Collector gathers what the calls of one evaluation describe.
type Collector struct {
	// Pod is the name of the pod: part of every derived MAC address.
	Pod string
	// Dir finds the directory that relative host paths in a file mean; it is
	// nil or reports false where a file may not name host paths.
	Dir func(filename string) (dir string, ok bool)
	// Thread prepares the thread of a callback, Explain gives an error of one
	// its position and backtrace; both may be nil.
	Thread  func(*starlark.Thread)
	Explain func(error) error

	// Set holds the values given to parameters, Params those declared.
	Set    map[string]string
	Params []PodParam

	// Containers in the order of their container() calls.
	Containers []*Container
	// Uplink is the host's end of the switch, nil without uplink().
	Uplink *bundle.Uplink
	// Machine is what the pod runs on, nil without machine().
	Machine *bundle.Machine

	uplinkPos, machinePos syntax.Position
}

// A Container is one container() of a file, whole.
type Container struct {
	Spec *bundle.Spec
	// Policy judges what the container sends; nil: nothing passes.
	Policy *policy.Policy
	// Program is Policy compiled for the container's card; the loader sets it.
	Program   *rule.Program
	Callbacks []Callback
	// Ready is how to find out that the container serves; nil: at once.
	Ready *Ready
	// StopSignal is sent first to stop it, without "SIG" ("TERM"); KILL
	// follows after StopTimeout.
	StopSignal  string
	StopTimeout time.Duration
	// Pos is the container() call.
	Pos syntax.Position

	nic  *nicValue
	vals map[string]any
}

// Attach makes the thread's container() and uplink() add to c.
func Attach(th *starlark.Thread, c *Collector) { th.SetLocal(localKey, c) }

// collector is the thread's collector, or an error naming the call.
func (c call) collector() (*Collector, error) {
	col, ok := c.Thread.Local(localKey).(*Collector)
	if !ok {
		return nil, args.Hinted("a pod's containers are fixed once it runs",
			"%s: may only be called while a file is loaded", c.Builtin.Name)
	}
	return col, nil
}

// add takes in a container whose name must be new.
func (col *Collector) add(c *Container) error {
	for _, old := range col.Containers {
		if old.Spec.Name == c.Spec.Name {
			return &args.Error{Arg: "name", Msg: fmt.Sprintf("container: name %q is taken by the container at %s", c.Spec.Name, old.Pos)}
		}
	}
	if err := col.checkNIC(c); err != nil {
		return err
	}
	col.Containers = append(col.Containers, c)
	return nil
}

// checkNIC finds addresses that two containers, or one and the uplink, claim.
// Guards let each send what is its own, so a shared address would be a licence
// to take the other's traffic.
func (col *Collector) checkNIC(c *Container) error {
	if c.Spec.NIC == nil {
		return nil
	}
	for _, old := range col.Containers {
		if old.Spec.NIC == nil {
			continue
		}
		if old.Spec.NIC.Datapath != c.Spec.NIC.Datapath {
			return &args.Error{Arg: "nic", Msg: fmt.Sprintf("container: %q: datapath %q, while that of %q at %s is %q",
				c.Spec.Name, datapath(c.Spec.NIC), old.Spec.Name, old.Pos, datapath(old.Spec.NIC)),
				Hint: "the cards of a pod are on one switch, in seki or in the kernel: give all the same datapath"}
		}
		if old.Spec.NIC.MAC == c.Spec.NIC.MAC {
			return &args.Error{Arg: "nic", Msg: fmt.Sprintf("container: %q: MAC %s is taken by %q at %s",
				c.Spec.Name, c.Spec.NIC.MAC, old.Spec.Name, old.Pos)}
		}
		for _, a := range c.Spec.NIC.Addrs {
			for _, b := range old.Spec.NIC.Addrs {
				if a.Addr() == b.Addr() {
					return &args.Error{Arg: "nic", Msg: fmt.Sprintf("container: %q: address %s is taken by %q at %s",
						c.Spec.Name, a.Addr(), old.Spec.Name, old.Pos)}
				}
			}
		}
	}
	return nil
}

// Finish makes the checks that need the whole pod.
func (col *Collector) Finish() error {
	if m := col.Machine; m != nil && (m.Kind != bundle.MachineAuto && m.Kind != bundle.MachineHost) {
		for _, c := range col.Containers {
			if c.Spec.NIC != nil && c.Spec.NIC.Datapath == bundle.DatapathKernel {
				return &args.Error{Pos: col.machinePos, Msg: fmt.Sprintf("machine: kind %q: the card of container %q at %s has datapath %q, which is of machine \"host\"",
					m.Kind, c.Spec.Name, c.Pos, c.Spec.NIC.Datapath), Hint: "a guest's frames are judged before they leave it: leave datapath out"}
			}
		}
	}
	if col.Uplink == nil {
		return nil
	}
	for _, c := range col.Containers {
		if c.Spec.NIC == nil {
			continue
		}
		for _, u := range col.Uplink.Addrs {
			for _, a := range c.Spec.NIC.Addrs {
				if a.Addr() == u.Addr() {
					return &args.Error{Pos: col.uplinkPos, Msg: fmt.Sprintf("uplink: address %s is taken by container %q at %s",
						u.Addr(), c.Spec.Name, c.Pos)}
				}
			}
		}
		if c.Spec.NIC.MAC == col.Uplink.MAC {
			return &args.Error{Pos: col.uplinkPos, Msg: fmt.Sprintf("uplink: MAC %s is taken by container %q at %s",
				col.Uplink.MAC, c.Spec.Name, c.Pos)}
		}
	}
	return nil
}

// hostPath makes a path of the host absolute: relative ones are relative to
// the directory of the file that names them, whatever the working directory.
func (c call) hostPath(name, p string) (string, error) {
	if strings.IndexByte(p, 0) >= 0 {
		return "", c.Errorf(name, "", "%s: path %q holds a zero byte", name, p)
	}
	if p == "" {
		return "", c.Errorf(name, "", "%s: empty path", name)
	}
	if filepath.IsAbs(p) {
		return filepath.Clean(p), nil
	}
	col, ok := c.Thread.Local(localKey).(*Collector)
	if ok && col.Dir != nil {
		if dir, ok := col.Dir(c.Pos.Filename()); ok {
			return filepath.Join(dir, p), nil
		}
	}
	return "", c.Errorf(name, "write an absolute path", "%s: relative path %q: relative to no file", name, p)
}

// innerPath checks a path inside the container: absolute and clean.
func (c call) innerPath(name, p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", c.Errorf(name, fmt.Sprintf("write %q", "/"+p), "%s: path in the container %q is not absolute", name, p)
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", c.Errorf(name, "", "%s: path %q holds a zero byte", name, p)
	}
	return path.Clean(p), nil
}

// deriveMAC is the hardware address of a card whose file names none: the same
// for the same pod and name, and in the locally administered unicast range
// (IEEE 802-2014, 8.4), so that it cannot be a real card's.
func deriveMAC(pod, name string) string {
	sum := sha256.Sum256([]byte(pod + "/" + name))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
