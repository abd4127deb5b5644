package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"sekimori/lifecycle/store"
)

// A CleanUpConfig says where dead pods may be.
type CleanUpConfig struct {
	Root    string  // empty is DefaultRoot
	Runtime Runtime // nil is Host
	// Network removes what the data path of a dead supervisor left on the
	// host; it gets PodConfig.NetworkRecord. Nil if there is nothing to do.
	Network func(ctx context.Context, pod string, record json.RawMessage) error
	Log     *slog.Logger // nil discards
}

// CleanUp removes what dead supervisors left under a state directory and
// returns the names of the pods it removed. It is idempotent, leaves living pods
// and kept records alone, and runs nothing of the user's. A state directory that
// does not exist is clean. One pod that cannot be removed does not keep the
// others from it.
func CleanUp(ctx context.Context, cfg CleanUpConfig) ([]string, error) {
	s, err := store.OpenExisting(rootOr(cfg.Root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, e := range list {
		if e.Live || e.State != nil && e.State.Ended() && e.State.Keep {
			continue
		}
		dead, err := cleanUpPod(ctx, s, e.Name, cfg)
		var used *store.NameError
		switch {
		case err == nil && dead:
			removed = append(removed, e.Name)
		case err == nil:
		case errors.As(err, &used) || errors.Is(err, fs.ErrNotExist):
			// It has come to life, or somebody else removes or has removed it.
		default:
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// cleanUpPod removes one dead pod, or the rest of one that has just ended, and
// says which. If that fails the record stays.
func cleanUpPod(ctx context.Context, s *store.Store, name string, cfg CleanUpConfig) (dead bool, err error) {
	if cfg.Runtime == nil {
		cfg.Runtime = Host()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	pod, st, err := s.Adopt(name)
	switch {
	case err != nil:
		return false, err
	case st == nil:
		return false, pod.Remove()
	case st.Ended() && st.Keep: // it ended well since it was looked at
		return false, pod.Release()
	case st.Ended():
		return false, pod.Remove()
	}
	cfg.Log.Info("removing what a dead supervisor left", "pod", name, "supervisor", st.Supervisor)
	if err := reapAll(ctx, st, cfg); err != nil {
		return false, errors.Join(fmt.Errorf("pod %q: clean up: %w", name, err), pod.Release())
	}
	return true, pod.Remove()
}

func reapAll(ctx context.Context, st *store.State, cfg CleanUpConfig) error {
	var errs []error
	all := st.Containers
	if st.Held != nil {
		all = append(slices.Clone(all), *st.Held)
	}
	for _, c := range all {
		if c.Gone || c.Record == nil { // without a record it was never made
			continue
		}
		if err := cfg.Runtime.Reap(ctx, c.Record); err != nil {
			errs = append(errs, fmt.Errorf("container %q: %w", c.Name, err))
		}
	}
	if cfg.Network != nil && len(st.Network) > 0 {
		errs = append(errs, cfg.Network(ctx, st.Name, st.Network))
	}
	return errors.Join(errs...)
}
