package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
)

// Host is the runtime of containers on the kernel seki itself runs on.
func Host() Runtime { return host{} }

type host struct{}

func (host) Create(context.Context, RuntimeConfig) (Instance, error) {
	return nil, errors.ErrUnsupported
}
func (host) Reap(context.Context, json.RawMessage) error { return errors.ErrUnsupported }
func (host) Plan(RuntimeConfig) (json.RawMessage, error) { return nil, errors.ErrUnsupported }
