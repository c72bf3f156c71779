package upstream

import (
	"errors"
	"fmt"
	"strings"

	"github.com/httvps/httvps/sdk/go/wire"
)

// everyName as a rule stands for all names.
const everyName = "."

// nameRules say of names whether they are allowed. Each holds for everything below
// its name, too; the key of [everyName] is empty.
type nameRules map[string]bool

// newNameRules returns rules and everything that is wrong with their names.
func newNameRules(allow, deny []string) (nameRules, error) {
	rules := make(nameRules, len(allow)+len(deny))
	var problems []error
	add := func(list string, names []string, allowed bool) {
		for _, name := range names {
			if err := checkNameRule(name); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", list, err))
				continue
			}
			rules[strings.TrimSuffix(name, everyName)] = allowed
		}
	}
	add("allow names", allow, true)
	add("deny names", deny, false) // behind: it wins over the same name above
	return rules, errors.Join(problems...)
}

// checkNameRule reports what is wrong with a name as a rule. Names are judged as
// they come over the tunnel, so one that cannot come would never match.
func checkNameRule(name string) error {
	if name == everyName {
		return nil
	}
	if name == "" || (wire.Addr{Name: name, Port: 1}).Check() != nil {
		return fmt.Errorf("%q is no name in lower case, without a dot at its ends and in ASCII", name)
	}
	return nil
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
		_, name, _ = strings.Cut(name, ".") // at the last label: everyName
	}
}

// CheckName returns [ErrDenied] unless the operator lets devices ask for name. The
// rule with the longest name that fits decides, and of two with the same name the
// denial. Whatever it resolves to is judged by [Policy.Check] besides.
func (p *Policy) CheckName(name string) error {
	if !p.names.allows(strings.ToLower(strings.TrimSuffix(name, "."))) {
		return ErrDenied
	}
	return nil
}
