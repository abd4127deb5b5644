package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"
	"time"
)

// A Client talks to the supervisor of a pod.
type Client struct{}

// Dial finds the supervisor of the named pod under a state directory (empty is
// DefaultRoot).
func Dial(root, pod string) (*Client, error) { return nil, errors.ErrUnsupported }

// Close ends the use of the client.
func (c *Client) Close() error { return nil }

// ContainerStats are the figures of one container at one moment.
type ContainerStats struct {
	Name    string          `json:"name"`
	Status  Status          `json:"status"`
	Pid     int             `json:"pid,omitempty"`
	Stats   Stats           `json:"stats"`
	Network json.RawMessage `json:"network,omitempty"` // what Network.Stats returns
	Error   string          `json:"error,omitempty"`
}

// Ping returns if the supervisor answers.
func (c *Client) Ping(ctx context.Context) error { return errors.ErrUnsupported }

// Stats of one container, or with an empty name of all.
func (c *Client) Stats(ctx context.Context, container string) ([]ContainerStats, error) {
	return nil, errors.ErrUnsupported
}

// Stop stops the pod and returns when nothing is left of it; timeout as in
// [Pod.Stop].
func (c *Client) Stop(ctx context.Context, timeout time.Duration) error {
	return errors.ErrUnsupported
}

// Kill kills the pod and returns when nothing is left of it.
func (c *Client) Kill(ctx context.Context) error { return errors.ErrUnsupported }

// Signal sends a signal to a container's workload.
func (c *Client) Signal(ctx context.Context, container string, sig syscall.Signal) error {
	return errors.ErrUnsupported
}

// SetMode sets the policy mode of a container, or with an empty name of all.
func (c *Client) SetMode(ctx context.Context, container, mode string) error {
	return errors.ErrUnsupported
}

// Exec starts a process in a container, with the files of e.Stdio as its own.
func (c *Client) Exec(ctx context.Context, container string, e ExecConfig) (*RemoteProcess, error) {
	return nil, errors.ErrUnsupported
}

// A RemoteProcess is a process started by [Client.Exec]. If the connection
// breaks, the supervisor kills it.
type RemoteProcess struct{}

// Wait returns the exit status.
func (p *RemoteProcess) Wait() (ExitStatus, error) { return ExitStatus{}, errors.ErrUnsupported }

// Signal sends sig to the process.
func (p *RemoteProcess) Signal(sig syscall.Signal) error { return errors.ErrUnsupported }
