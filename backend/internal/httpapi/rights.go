package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/httvps/httvps/backend/internal/control"
)

// rights says what each operation of operators needs. It is the one place where that
// is decided; what it does not have nobody may do. docs/02 has the same table.
var rights = map[string]control.Right{
	"whoami":       control.RightSelf,
	"create-token": control.RightSelf,
	"list-tokens":  control.RightSelf, // of others: control.RightAudit
	"delete-token": control.RightSelf, // of others: control.RightOperators
	"list-logins":  control.RightSelf, // of others: control.RightAudit
	"delete-login": control.RightSelf, // of others: control.RightManage

	"show-sign-in":   control.RightSelf,
	"change-sign-in": control.RightSelf,

	"list-users":           control.RightRead,
	"show-user":            control.RightRead,
	"list-invitations":     control.RightRead,
	"list-devices":         control.RightRead,
	"show-device":          control.RightRead,
	"list-plans":           control.RightRead,
	"show-plan":            control.RightRead,
	"list-subscriptions":   control.RightRead,
	"show-subscription":    control.RightRead,
	"list-regions":         control.RightRead,
	"show-region":          control.RightRead,
	"list-gateways":        control.RightRead,
	"show-gateway":         control.RightRead,
	"list-outline-servers": control.RightRead,
	"show-outline-server":  control.RightRead,
	"list-sessions":        control.RightRead,
	"list-traffic":         control.RightRead,
	"show-session":         control.RightRead,
	"show-usage":           control.RightRead,
	"why-device":           control.RightRead,
	"why-user":             control.RightRead,
	"show-usage-series":    control.RightRead,
	"preview-bulk":         control.RightRead,
	"list-bulk":            control.RightRead,
	"show-bulk":            control.RightRead,
	"list-webhooks":        control.RightRead,
	"show-webhook":         control.RightRead,
	"show-settings":        control.RightRead,

	"list-webhook-deliveries": control.RightRead,

	"update-user":       control.RightSupport,
	"create-invitation": control.RightSupport,
	"delete-invitation": control.RightSupport,
	"update-device":     control.RightSupport,
	"revoke-device":     control.RightSupport,
	"close-session":     control.RightSupport,

	"create-user":           control.RightManage,
	"delete-user":           control.RightManage,
	"update-user-limits":    control.RightManage,
	"create-plan":           control.RightManage,
	"update-plan":           control.RightManage,
	"delete-plan":           control.RightManage,
	"create-subscription":   control.RightManage,
	"update-subscription":   control.RightManage,
	"delete-subscription":   control.RightManage,
	"create-region":         control.RightManage,
	"update-region":         control.RightManage,
	"delete-region":         control.RightManage,
	"create-gateway":        control.RightManage,
	"delete-gateway":        control.RightManage,
	"drain-gateway":         control.RightManage,
	"undrain-gateway":       control.RightManage,
	"create-outline-server": control.RightManage,
	"update-outline-server": control.RightManage,
	"delete-outline-server": control.RightManage,
	"create-bulk":           control.RightManage,
	"run-bulk":              control.RightManage,
	"create-webhook":        control.RightManage,
	"update-webhook":        control.RightManage,
	"delete-webhook":        control.RightManage,
	"rotate-webhook-secret": control.RightManage,
	"test-webhook":          control.RightManage,
	"redeliver-webhook":     control.RightManage,
	"update-settings":       control.RightManage,

	"verify-usage":   control.RightAudit,
	"list-audit":     control.RightAudit,
	"show-audit":     control.RightAudit,
	"verify-audit":   control.RightAudit,
	"list-operators": control.RightAudit,
	"show-operator":  control.RightAudit,

	"create-operator":       control.RightOperators,
	"update-operator":       control.RightOperators,
	"delete-operator":       control.RightOperators,
	"create-operator-token": control.RightOperators,
	"invite-operator":       control.RightOperators,
}

// mayNot returns why a role may not do an operation, or nil when it may.
func mayNot(role control.Role, operation string) *Problem {
	right, known := rights[operation]
	if known && role.Has(right) {
		return nil
	}
	var may []string
	for _, other := range control.Roles() {
		if known && other.Has(right) {
			may = append(may, string(other))
		}
	}
	slices.Sort(may)
	return newProblem(http.StatusForbidden, codeForbidden,
		fmt.Sprintf("the role %s is not enough: this needs the right %s, which these have: %s", role, right, strings.Join(may, ", ")))
}
