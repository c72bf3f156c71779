package server

import (
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/sdk/go/wire"
)

// revoke ends at once the sessions that an event takes the right from. It does not
// wait. A session that is only about to begin is asked about again, see reviews.
func revoke(registry *sessions.Registry, e nodes.Event) {
	switch e.Kind {
	case nodes.DeviceRevoked:
		if device, ok := e.Device(); ok {
			registry.EndDevice(device, e.Reason.Wire(), e.At)
		}
	case nodes.UserDisabled, nodes.UserRemoved:
		if e.UserID != "" {
			registry.EndUser(e.UserID, e.Reason.Wire(), e.At)
		}
	case nodes.SessionClose:
		if id, ok := e.Session(); ok {
			registry.EndSession(id, e.Reason.Wire(), e.At)
		}
	case nodes.GatewayRemoved:
		// Its devices have other gateways, or learn that there is none.
		registry.EndAll(wire.CodeShutdown)
	}
}
