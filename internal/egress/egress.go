// Package egress has the rules by which a plan narrows where its sessions may go. They
// come from an operator, are kept by the control plane and hold at gateways, besides what
// these deny to everybody.
package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/httvps/httvps/internal/publicaddr"
	"github.com/httvps/httvps/sdk/go/wire"
)

// MaxRules is how long each list may be. All of them travel with every decision.
const MaxRules = 256

// EveryName as a rule stands for all names.
const EveryName = "."

// Rules deny targets. The zero value denies none.
type Rules struct {
	DeniedPrefixes []netip.Prefix `json:"denied_prefixes,omitempty"`
	DeniedPorts    []uint16       `json:"denied_ports,omitempty"`
	AllowedPorts   []uint16       `json:"allowed_ports,omitempty"` // the only ones that are not denied; empty: all
	// DeniedNames hold for everything below them, too, and AllowedNames are exceptions:
	// the longest name that fits decides, and of two that are the same the denial.
	DeniedNames  []string `json:"denied_names,omitempty"`
	AllowedNames []string `json:"allowed_names,omitempty"`
}

// Empty reports whether nothing is denied.
func (r Rules) Empty() bool {
	return len(r.DeniedPrefixes) == 0 && len(r.DeniedPorts) == 0 && len(r.AllowedPorts) == 0 && len(r.DeniedNames) == 0
}

// Problem is what is wrong with one of the lists.
type Problem struct{ List, What string }

// Problems are all that is wrong, of each list the first thing.
func (r Rules) Problems() []Problem {
	var found []Problem
	look := func(list string, length int, wrong func(i int) error) {
		if length > MaxRules {
			found = append(found, Problem{list, fmt.Sprintf("want at most %d", MaxRules)})
			return
		}
		for i := range length {
			if err := wrong(i); err != nil {
				found = append(found, Problem{list, err.Error()})
				return
			}
		}
	}
	look("denied_prefixes", len(r.DeniedPrefixes), func(i int) error { return publicaddr.CheckPrefix(r.DeniedPrefixes[i]) })
	look("denied_ports", len(r.DeniedPorts), func(i int) error { return checkPort(r.DeniedPorts[i]) })
	look("allowed_ports", len(r.AllowedPorts), func(i int) error { return checkPort(r.AllowedPorts[i]) })
	look("denied_names", len(r.DeniedNames), func(i int) error { return CheckName(r.DeniedNames[i]) })
	look("allowed_names", len(r.AllowedNames), func(i int) error { return CheckName(r.AllowedNames[i]) })
	return found
}

// Check returns everything that is wrong as one error, or nil.
func (r Rules) Check() error {
	var problems []error
	for _, p := range r.Problems() {
		problems = append(problems, fmt.Errorf("%s: %s", p.List, p.What))
	}
	return errors.Join(problems...)
}

// Sorted returns the rules with each list in order and without repetitions.
func (r Rules) Sorted() Rules {
	return Rules{
		DeniedPrefixes: slices.Compact(slices.SortedFunc(slices.Values(r.DeniedPrefixes), comparePrefixes)),
		DeniedPorts:    slices.Compact(slices.Sorted(slices.Values(r.DeniedPorts))),
		AllowedPorts:   slices.Compact(slices.Sorted(slices.Values(r.AllowedPorts))),
		DeniedNames:    slices.Compact(slices.Sorted(slices.Values(r.DeniedNames))),
		AllowedNames:   slices.Compact(slices.Sorted(slices.Values(r.AllowedNames))),
	}
}

func comparePrefixes(a, b netip.Prefix) int {
	if order := a.Addr().Compare(b.Addr()); order != 0 {
		return order
	}
	return a.Bits() - b.Bits()
}

// CheckName reports what is wrong with a name as a rule. Names are judged as they come
// over the tunnel, so one that cannot come would never match.
func CheckName(name string) error {
	if name == EveryName {
		return nil
	}
	if name == "" || (wire.Addr{Name: name, Port: 1}).Check() != nil {
		return fmt.Errorf("%q is no name, want one such as example.com, which stands for everything below it, too: "+
			"in lower case, in ASCII (xn--…), without * and without a dot at its ends", strings.ToValidUTF8(name, "?"))
	}
	return nil
}

func checkPort(port uint16) error {
	if port == 0 {
		return errors.New("0 is not a port")
	}
	return nil
}
