package control

import "slices"

// Right is what an operation of operators needs. The texts are part of the API.
type Right string

// The rights.
const (
	RightSelf      Right = "self"      // one's own name and tokens: every operator has it
	RightRead      Right = "read"      // all records but the audit log and operators
	RightSupport   Right = "support"   // help users who are there: invitations, devices, sessions
	RightManage    Right = "manage"    // change everything but operators
	RightAudit     Right = "audit"     // the audit log, operators and tokens, to look at; recomputations
	RightOperators Right = "operators" // make, change and remove operators and their tokens
)

// Role is a set of rights, of an operator or of an API token. The texts are part of
// the API.
type Role string

// The roles.
const (
	RoleOwner   Role = "owner"   // may do everything
	RoleAdmin   Role = "admin"   // everything but operators
	RoleSupport Role = "support" // looks, and helps users
	RoleAuditor Role = "auditor" // looks, at the audit log too, and changes nothing
)

// Roles returns all of them.
func Roles() []Role { return []Role{RoleOwner, RoleAdmin, RoleSupport, RoleAuditor} }

// Rights returns what a role may do; one that is not known may nothing.
func (r Role) Rights() []Right {
	switch r {
	case RoleOwner:
		return []Right{RightSelf, RightRead, RightSupport, RightManage, RightAudit, RightOperators}
	case RoleAdmin:
		return []Right{RightSelf, RightRead, RightSupport, RightManage, RightAudit}
	case RoleSupport:
		return []Right{RightSelf, RightRead, RightSupport}
	case RoleAuditor:
		return []Right{RightSelf, RightRead, RightAudit}
	default:
		return nil
	}
}

// Has reports whether a role has a right.
func (r Role) Has(right Right) bool { return slices.Contains(r.Rights(), right) }

// Covers reports whether a role may do all that another one may: who has it may
// give that one away.
func (r Role) Covers(other Role) bool {
	return slices.Contains(Roles(), other) && !slices.ContainsFunc(other.Rights(), func(right Right) bool { return !r.Has(right) })
}
