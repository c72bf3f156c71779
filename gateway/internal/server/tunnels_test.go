package server

import (
	"testing"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestOnlyTheGatewaysOwnEndLetsTargetsHaveTheRest(t *testing.T) {
	for _, why := range reason.All() {
		if !cutsOff(why.Wire()) {
			t.Errorf("%s lets what is on its way go on", why)
		}
	}
	if cutsOff(wire.CodeShutdown) {
		t.Error("a gateway that stops cuts off what came whole before")
	}
}

// A reason is told by its code; no decision in time, and one to come back, as
// something that passes.
func TestDecisionsAreToldByTheirCode(t *testing.T) {
	if refusal := refusedBy(nodes.Decision{Allowed: true}, nil); refusal != nil {
		t.Errorf("an allowed device: %v", refusal)
	}
	if got := refusedBy(nodes.Decision{}, nodes.ErrBusy); got == nil || got.Code != wire.CodeRetryLater || got.RetryAfter != retryBusy {
		t.Errorf("too many questions: %+v", got)
	}
	if got := refusedBy(nodes.Decision{}, nodes.ErrUndecided); got == nil || got.Code != wire.CodeRetryLater || got.RetryAfter != retryUndecided {
		t.Errorf("no decision: %+v", got)
	}
	for _, why := range reason.All() {
		got := refusedBy(nodes.Decision{Reason: why}, nil)
		if got == nil || got.Code != why.Wire() || (got.RetryAfter > 0) != (why == reason.RetryLater) {
			t.Errorf("%s: %+v", why, got)
		}
	}
}
