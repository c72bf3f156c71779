package api_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/httvps/httvps/ctl/internal/api"
)

// TestFieldsAreThoseOfTheService holds the types of this package against the
// service's published description: a field that the service does not have would
// be silently empty.
func TestFieldsAreThoseOfTheService(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]json.RawMessage `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for schema, of := range map[string]any{
		"User": api.User{}, "Limits": api.Limits{}, "Moving": api.Moving{}, "WhyLimit": api.WhyLimit{}, "Plan": api.Plan{}, "SubscriptionWithQuota": api.Subscription{}, "QuotaUse": api.QuotaUse{}, "Device": api.Device{},
		"Region": api.Region{}, "Gateway": api.Gateway{}, "NewGateway": api.NewGateway{}, "Session": api.Session{},
		"OutlineServer": api.OutlineServer{}, "OutlineKey": api.OutlineKey{},
		"NewInvitation": api.Invitation{}, "Traffic": api.Traffic{}, "UsageDay": api.UsageDay{}, "UsageDays": api.UsageDays{},
		"UsageVerdict": api.UsageVerdict{}, "UsageDifference": api.UsageDifference{}, "Operator": api.Operator{},
		"AuditEntry": api.AuditEntry{}, "AuditActor": api.AuditActor{}, "AuditVerdict": api.AuditVerdict{},
		"Whoami": api.Whoami{}, "OperatorWithToken": api.NewOperator{},
		"Login": api.Login{}, "LoggedIn": api.LoggedIn{}, "SignIn": api.SignIn{}, "NewTOTP": api.TOTP{}, "CurrentSignIn": api.Credentials{},
		"SignInChange": api.SignInChange{}, "RecoveryCodes": api.RecoveryCodes{}, "OperatorLink": api.OperatorLink{},
		"Webhook": api.Webhook{}, "WebhookSecret": api.WebhookSecret{}, "WebhookWithSecret": api.NewWebhook{}, "Delivery": api.Delivery{},
		"Redelivered": api.Redelivered{}, "Settings": api.Settings{},
		"APIToken": api.TokenInfo{}, "NewAPIToken": api.NewToken{},
	} {
		published := document.Components.Schemas[schema].Properties
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			if field.Anonymous {
				continue
			}
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if _, ok := published[name]; !ok {
				t.Errorf("%s has no field %s", schema, name)
			}
		}
	}
}
