package server

import (
	"testing"

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
