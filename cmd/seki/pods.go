package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
)

// pods are the pods of the state directory, by name. If there is no state
// directory there is no pod.
func (a *app) pods() ([]store.Entry, error) {
	s, err := store.OpenExisting(a.root)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.List()
}

// lookup finds the pod of that name.
func (a *app) lookup(name string) (*store.Entry, error) {
	all, err := a.pods()
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	return nil, fmt.Errorf("pod %q: no such pod in %s%s", name, a.root, meant(name, names))
}

// forget removes the records of a pod that has ended.
func (a *app) forget(name string) error {
	s, err := store.OpenExisting(a.root)
	if err != nil {
		return err
	}
	defer s.Close()
	p, _, err := s.Adopt(name)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.Remove()
}

// A target is a container of a pod.
type target struct{ pod, container string }

func (t target) String() string { return t.pod + "/" + t.container }

// find resolves what a user typed: POD/CONTAINER, or a CONTAINER that only
// one pod has, or a POD with only one container.
func (a *app) find(arg string) (target, error) {
	all, err := a.pods()
	if err != nil {
		return target{}, err
	}
	var known []string
	var found []target
	for _, e := range all {
		if e.State == nil {
			continue
		}
		for _, c := range e.State.Containers {
			t := target{e.Name, c.Name}
			known = append(known, t.String())
			if arg == t.String() || arg == t.container || arg == t.pod && len(e.State.Containers) == 1 {
				found = append(found, t)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return target{}, usage("container %q: several pods have one: %s", arg, list(found))
	case slices.ContainsFunc(all, func(e store.Entry) bool { return e.Name == arg }):
		var own []string
		for _, k := range known {
			if strings.HasPrefix(k, arg+"/") {
				own = append(own, k)
			}
		}
		if len(own) == 0 {
			return target{}, fmt.Errorf("pod %q: has no container\n    seki run --warm %[1]s FILE gives a machine that waits some", arg)
		}
		return target{}, usage("pod %q: has several containers, say which: %s", arg, strings.Join(own, ", "))
	}
	return target{}, fmt.Errorf("container %q: no such container in %s%s", arg, a.root, meant(arg, known))
}

// dial reaches the supervisor of a pod that must be running.
func (a *app) dial(pod string) (*lifecycle.Client, error) {
	c, err := lifecycle.Dial(a.root, pod)
	var down *store.DownError
	if errors.As(err, &down) {
		return nil, fmt.Errorf("pod %q: is not running", pod)
	}
	return c, err
}

// completePods completes names of pods.
func (a *app) completePods(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, _ := a.pods()
	var names []string
	for _, e := range all {
		names = append(names, e.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeContainers completes POD/CONTAINER, as the first argument only.
func (a *app) completeContainers(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	all, _ := a.pods()
	var names []string
	for _, e := range all {
		if e.State != nil {
			for _, c := range e.State.Containers {
				names = append(names, e.Name+"/"+c.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
