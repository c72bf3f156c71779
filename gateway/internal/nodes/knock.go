package nodes

import (
	"errors"
	"fmt"
	"slices"

	"github.com/httvps/httvps/sdk/go/knock"
)

// maxKnockKeys bounds the keys that one knock is tried with.
const maxKnockKeys = 16

// Knock is what devices are known by before they say who they are: the cookie of
// that name holds a knock under one of the keys.
type Knock struct {
	Cookie string      `json:"cookie"`
	Keys   []knock.Key `json:"keys"`
}

// validate judges what the control plane says. To say nothing is allowed: then
// nobody is let in by its word.
func (k Knock) validate() error {
	switch {
	case len(k.Keys) == 0:
		return nil
	case len(k.Keys) > maxKnockKeys:
		return fmt.Errorf("the control plane told %d knock keys, want at most %d", len(k.Keys), maxKnockKeys)
	case slices.Contains(k.Keys, knock.Key{}):
		return errors.New("the control plane told an empty knock key")
	}
	if err := knock.ValidCookieName(k.Cookie); err != nil {
		return fmt.Errorf("the control plane's knock: %w", err)
	}
	return nil
}
