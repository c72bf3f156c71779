package api

import (
	"context"
	"net/http"
	"time"
)

// Why says whether a device, or a user's devices, may connect, and what there is
// against it.
type Why struct {
	UserName   string      `json:"user_name"`
	DeviceID   string      `json:"device_id"` // empty: it is about the user
	DeviceName string      `json:"device_name"`
	Allowed    bool        `json:"allowed"`
	Reason     string      `json:"reason"`
	Since      *time.Time  `json:"since"`
	Next       string      `json:"next"`
	Checks     []WhyCheck  `json:"checks"`
	Limits     []WhyLimit  `json:"limits"`
	Devices    []WhyDevice `json:"devices"`
}

// WhyDevice is Why of one of a user's devices.
type WhyDevice struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Allowed bool       `json:"allowed"`
	Reason  string     `json:"reason"`
	Since   *time.Time `json:"since"`
	Next    string     `json:"next"`
}

// WhyLimit is a limit as it holds for a user.
type WhyLimit struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // plan or user
	Plan   string `json:"plan"`   // what the plan says, of one that is the user's own
}

// WhyCheck is one thing that sessions depend on.
type WhyCheck struct {
	Name   string     `json:"name"`
	State  string     `json:"state"`
	Reason string     `json:"reason"`
	Detail string     `json:"detail"`
	Since  *time.Time `json:"since"`
	Next   string     `json:"next"`
}

// WhyDevice asks why a device can or cannot connect.
func (c *Client) WhyDevice(ctx context.Context, id string) (Object[Why], error) {
	return c.Devices().why(ctx, id)
}

// WhyUser asks that of all devices of a user.
func (c *Client) WhyUser(ctx context.Context, id string) (Object[Why], error) {
	return c.Users().why(ctx, id)
}

func (s Collection[T]) why(ctx context.Context, id string) (Object[Why], error) {
	return one[Why](ctx, s.client, call{method: http.MethodGet, path: s.path + "/" + id + "/why", what: Thing{s.kind, id}})
}
