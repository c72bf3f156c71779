package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// reasonHeader is where an operator says why he changes something.
const reasonHeader = "Audit-Reason"

func reasonProblem() *Problem {
	p := newProblem(http.StatusUnprocessableEntity, codeInvalidRequest, "the request is not valid")
	p.Errors = []ProblemField{{Location: "header." + reasonHeader, Message: "want at most 200 characters, none of them a control character"}}
	return p
}

// AuditActor is who changed something.
type AuditActor struct {
	Kind    string `json:"kind" doc:"operator, device, gateway, command (a person at the service's machine) or system."`
	ID      string `json:"id"`
	Name    string `json:"name" doc:"As it was then."`
	TokenID string `json:"token_id" doc:"Of the API token in use."`
	Address string `json:"address" doc:"That the request came from."`
}

// AuditEntry says who changed what.
type AuditEntry struct {
	Number    int64           `json:"number" doc:"From 1, without a gap."`
	At        time.Time       `json:"at"`
	Action    string          `json:"action" doc:"What became of what, such as user.updated."`
	ObjectID  string          `json:"object_id"`
	Actor     AuditActor      `json:"actor"`
	Reason    string          `json:"reason" doc:"That the operator gave (Audit-Reason)."`
	Before    json.RawMessage `json:"before" doc:"What it was, without secrets; null: there was nothing."`
	After     json.RawMessage `json:"after" doc:"What it is then; null: there is nothing any more."`
	Hash      string          `json:"hash" doc:"SHA-256 over the hash before and all of the entry, in hexadecimal."`
	Signature string          `json:"signature" doc:"Ed25519 over the hash; base64url."`
}

func showAuditEntry(e control.AuditEntry) AuditEntry {
	return AuditEntry{
		Number: e.Number, At: e.At, Action: e.Action, ObjectID: e.ObjectID, Reason: e.Actor.Reason,
		Actor: AuditActor{
			Kind: string(e.Actor.Kind), ID: e.Actor.ID, Name: e.Actor.Name, TokenID: e.Actor.TokenID, Address: e.Actor.Address,
		},
		Before: orNull(e.Before), After: orNull(e.After),
		Hash: hex.EncodeToString(e.Hash), Signature: rawURL.EncodeToString(e.Signature),
	}
}

// orNull shows what the log has; what somebody has damaged may be no JSON any more.
func orNull(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}

// AuditVerdict is what a look at the whole audit log led to.
type AuditVerdict struct {
	OK      bool   `json:"ok"`
	Entries int64  `json:"entries" doc:"How many there should be: the number of the newest."`
	Hash    string `json:"hash" doc:"Of the newest entry. Write it down elsewhere with entries: whoever restores an older log cannot have it."`
	Key     string `json:"key" doc:"The Ed25519 key whose signatures the entries have; base64url."`
	Broken  *int64 `json:"broken" doc:"The first entry that is not as it was written, or is missing; null: none."`
	Problem string `json:"problem" doc:"What is wrong with it."`
}

type auditListInput struct {
	Limit    int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many items at most."`
	Cursor   string `query:"cursor" maxLength:"18" pattern:"^[0-9]*$" doc:"The next of the part before."`
	Order    string `query:"order" enum:"newest,oldest" default:"newest" doc:"Which come first."`
	ActorID  string `query:"actor_id" maxLength:"64" doc:"Only what this operator, device or gateway did."`
	ObjectID string `query:"object_id" maxLength:"64" doc:"Only what became of this."`
	Action   string `query:"action" maxLength:"64" doc:"Only this, such as device.revoked."`
}

type auditNumberInput struct {
	Number int64 `path:"number" minimum:"1"`
}

type auditVerifyInput struct {
	Number int64  `query:"number" minimum:"0" doc:"An entry that is known from earlier, with its hash."`
	Hash   string `query:"hash" maxLength:"64" pattern:"^([0-9a-f]{64})?$" doc:"In hexadecimal."`
}

func (s *server) registerAudit(api huma.API) {
	register(s, api, s.admin("list-audit", http.MethodGet, "/audit", "List who changed what"),
		func(ctx context.Context, in *auditListInput) (*body[List[AuditEntry]], error) {
			after, _ := strconv.ParseInt(in.Cursor, 10, 64) // the pattern allows nothing else but none
			entries, err := s.authority.AuditEntries(ctx, control.AuditFilter{
				ActorID: in.ActorID, ObjectID: in.ObjectID, Action: in.Action, Oldest: in.Order == "oldest", After: after, Limit: in.Limit + 1,
			})
			return listOf(Paging{Limit: in.Limit}, entries, showAuditEntry, func(e control.AuditEntry) string {
				return strconv.FormatInt(e.Number, 10)
			}), err
		})
	verify := s.admin("verify-audit", http.MethodGet, "/audit/verify", "Look at every entry of the audit log and name the first that is not as it was written")
	verify.Description = "As of one moment. Takes time with the number of entries, at most 15 minutes."
	register(s, api, verify, func(ctx context.Context, in *auditVerifyInput) (*body[AuditVerdict], error) {
		if (in.Number == 0) != (in.Hash == "") {
			return nil, newProblem(http.StatusUnprocessableEntity, codeInvalidRequest, "want both number and hash, or neither")
		}
		ctx, cancel := patient(ctx, verifyTimeout)
		defer cancel()
		hash, err := hex.DecodeString(in.Hash)
		if err != nil {
			return nil, err
		}
		v, err := s.authority.VerifyAudit(ctx, control.AuditHead{Number: in.Number, Hash: hash})
		if err != nil {
			return nil, err
		}
		out := AuditVerdict{
			OK: v.Broken == 0, Entries: v.Head.Number, Hash: hex.EncodeToString(v.Head.Hash), Key: rawURL.EncodeToString(v.Key),
			Problem: v.Problem,
		}
		if v.Broken != 0 {
			out.Broken = &v.Broken
		}
		return &body[AuditVerdict]{out}, nil
	})
	register(s, api, s.admin("show-audit", http.MethodGet, "/audit/{number}", "Show an entry of the audit log"),
		func(ctx context.Context, in *auditNumberInput) (*body[AuditEntry], error) {
			e, err := s.authority.AuditEntry(ctx, in.Number)
			return &body[AuditEntry]{showAuditEntry(e)}, err
		})
}
