package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Why says whether a device, or a user's devices, may connect, and what there is
// against it.
type Why struct {
	UserID     string      `json:"user_id"`
	UserName   string      `json:"user_name"`
	DeviceID   string      `json:"device_id,omitempty" doc:"Absent: it is about the user."`
	DeviceName string      `json:"device_name,omitempty"`
	Allowed    bool        `json:"allowed" doc:"Nothing stands in the way of a session now."`
	Reason     string      `json:"reason,omitempty" doc:"Why not, such as quota_exceeded: what the device is told. Of the first check that failed."`
	Since      *time.Time  `json:"since,omitempty" doc:"When that became so. Absent: it is not known."`
	Next       string      `json:"next,omitempty" doc:"What to do about it, for people."`
	SessionID  string      `json:"session_id,omitempty" doc:"The newest that is live."`
	Checks     []WhyCheck  `json:"checks" doc:"In the order in which the service looks."`
	Limits     []WhyLimit  `json:"limits" doc:"What holds for the user, and whence, with the plan that a session would rest on. Without a plan only what is the user's own."`
	Devices    []WhyDevice `json:"devices,omitempty" doc:"Of a user: those in use, the newest 20."`
}

// WhyDevice is Why of one of a user's devices.
type WhyDevice struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Allowed   bool       `json:"allowed"`
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Next      string     `json:"next,omitempty"`
	SessionID string     `json:"session_id,omitempty"`
	Checks    []WhyCheck `json:"checks"`
}

// WhyLimit is a limit as it holds for a user.
type WhyLimit struct {
	Name   string `json:"name" enum:"max_devices,max_sessions,max_streams,max_udp,speed_up_bps,speed_down_bps,quota_bytes,quota_period,regions"`
	Value  string `json:"value" doc:"A number, none, a period, or the codes of regions with commas, or all."`
	Source string `json:"source" enum:"plan,user" doc:"Whose it is: user: the user's own, whatever the plan says."`
	Plan   string `json:"plan,omitempty" doc:"With user: what the plan says."`
}

func showHeldLimits(limits []control.HeldLimit) []WhyLimit {
	shown := make([]WhyLimit, 0, len(limits))
	for _, l := range limits {
		one := WhyLimit{Name: l.Name, Value: l.Value, Source: "plan", Plan: l.Plan}
		if l.Own {
			one.Source = "user"
		}
		shown = append(shown, one)
	}
	return shown
}

// WhyCheck is one thing that sessions depend on.
type WhyCheck struct {
	Name   string     `json:"name" enum:"credential,user,subscription,quota,devices,invitation,region,gateway,clock,sessions,egress,last_refusal"`
	State  string     `json:"state" enum:"passed,warned,failed" doc:"warned: it does not stand in the way, and may be what somebody complains of."`
	Reason string     `json:"reason,omitempty" doc:"Of failed."`
	Detail string     `json:"detail" doc:"For people."`
	Since  *time.Time `json:"since,omitempty"`
	Next   string     `json:"next,omitempty"`
}

func showChecks(checks []control.Check) []WhyCheck {
	shown := make([]WhyCheck, 0, len(checks))
	for _, c := range checks {
		shown = append(shown, WhyCheck{
			Name: string(c.Name), State: string(c.State), Reason: string(c.Reason), Detail: c.Detail, Since: utc(c.Since), Next: c.Next,
		})
	}
	return shown
}

func sessionIDOf(w control.Why) string {
	if w.Session == nil {
		return ""
	}
	return w.Session.ID
}

func showWhy(w control.Why) Why {
	cause, against := w.Cause()
	shown := Why{
		UserID: w.User.ID, UserName: w.User.Name, Allowed: !against, Reason: string(cause.Reason), Since: utc(cause.Since), Next: cause.Next,
		SessionID: sessionIDOf(w), Checks: showChecks(w.Checks), Limits: showHeldLimits(w.Limits),
	}
	if w.Device != nil {
		shown.DeviceID, shown.DeviceName = w.Device.ID, w.Device.Name
	}
	for _, d := range w.Devices {
		cause, against := d.Cause()
		shown.Devices = append(shown.Devices, WhyDevice{
			ID: d.Device.ID, Name: d.Device.Name, Allowed: !against, Reason: string(cause.Reason), Since: utc(cause.Since), Next: cause.Next,
			SessionID: sessionIDOf(d), Checks: showChecks(d.Checks),
		})
	}
	return shown
}

func (s *server) registerWhy(api huma.API) {
	register(s, api, s.admin("why-device", http.MethodGet, "/devices/{id}/why", "Say why a device can or cannot connect"),
		func(ctx context.Context, in *ByID) (*body[Why], error) {
			why, err := s.authority.WhyDevice(ctx, in.ID)
			return &body[Why]{showWhy(why)}, err
		})
	register(s, api, s.admin("why-user", http.MethodGet, "/users/{id}/why", "Say why a user's devices can or cannot connect, and whether another one could be enrolled"),
		func(ctx context.Context, in *ByID) (*body[Why], error) {
			why, err := s.authority.WhyUser(ctx, in.ID)
			return &body[Why]{showWhy(why)}, err
		})
}
