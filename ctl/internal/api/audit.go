package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// AuditActor is who changed something.
type AuditActor struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	TokenID string `json:"token_id"`
	Address string `json:"address"`
}

// AuditEntry says who changed what.
type AuditEntry struct {
	Number   int64           `json:"number"`
	At       time.Time       `json:"at"`
	Action   string          `json:"action"`
	ObjectID string          `json:"object_id"`
	Actor    AuditActor      `json:"actor"`
	Reason   string          `json:"reason"`
	Before   json.RawMessage `json:"before"`
	After    json.RawMessage `json:"after"`
	Hash     string          `json:"hash"`
}

// AuditVerdict is what a look at the whole audit log led to.
type AuditVerdict struct {
	OK      bool   `json:"ok"`
	Entries int64  `json:"entries"`
	Hash    string `json:"hash"`   // of the newest
	Broken  *int64 `json:"broken"` // nil: none
	Problem string `json:"problem"`
}

// Audit is the audit log, newest first unless its list is asked for in another order.
func (c *Client) Audit() Collection[AuditEntry] {
	return Collection[AuditEntry]{c, "entry of the audit log", "audit"}
}

// VerifyAudit has every entry looked at. query may name one that is known.
func (c *Client) VerifyAudit(ctx context.Context, query url.Values) (Object[AuditVerdict], error) {
	return one[AuditVerdict](ctx, c, call{method: http.MethodGet, path: "audit/verify", query: query, what: Thing{Kind: "audit log"}})
}
