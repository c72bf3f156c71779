package upstream

import (
	"errors"
	"fmt"
	"strings"

	"github.com/httvps/httvps/internal/egress"
)

// nameRules say of names whether they are allowed. Each holds for everything below
// its name, too; the key of [egress.EveryName] is empty.
type nameRules map[string]bool

// newNameRules returns rules and everything that is wrong with their names.
func newNameRules(allow, deny []string) (nameRules, error) {
	rules := make(nameRules, len(allow)+len(deny))
	var problems []error
	add := func(list string, names []string, allowed bool) {
		for _, name := range names {
			if err := egress.CheckName(name); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", list, err))
				continue
			}
			rules[strings.TrimSuffix(name, egress.EveryName)] = allowed
		}
	}
	add("allow names", allow, true)
	add("deny names", deny, false) // behind: it wins over the same name above
	return rules, errors.Join(problems...)
}

// allows reports what the longest rule that fits says about name, and true where
// there is none.
func (r nameRules) allows(name string) bool {
	if len(r) == 0 {
		return true
	}
	for {
		if allowed, listed := r[name]; listed {
			return allowed
		}
		if name == "" {
			return true
		}
		_, name, _ = strings.Cut(name, ".") // at the last label: every name
	}
}

// CheckName returns [ErrDenied] unless operator and plan let devices ask for name. The
// rule with the longest name that fits decides, and of two with the same name the
// denial. Whatever it resolves to is judged by [Policy.Check] besides.
func (p *Policy) CheckName(name string) error {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if plan := p.narrower(); !p.names.allows(name) || plan != nil && !plan.names.allows(name) {
		return ErrDenied
	}
	return nil
}
