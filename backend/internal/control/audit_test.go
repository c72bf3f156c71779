package control_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// unaudited are the methods of Tx that change nothing, and those whose changes are
// not for the audit log, with the reason.
var unaudited = map[string]string{
	// the log itself, and what is written beside every change
	"LockAudit": "log", "PutAuditHead": "log", "InsertAudit": "log", "AppendEvent": "follows from a change",
	"InsertOnceResult": "follows from a change", "ReplaceSealed": "the setting sealing_key says it, once for all of them",
	"SettleRestored": "the entry service.restored says it",
	// what gateways and devices say all the time
	"TouchDevice": "frequent", "RenewLease": "frequent", "StartSession": "frequent", "EndSessions": "frequent", "EndOtherBoots": "frequent",
	"EndLostSessions": "frequent", "InsertUsageSession": "frequent", "UpdateUsageSession": "frequent", "PutUsageReport": "frequent", "AddUsage": "frequent", "AddUsageTotal": "frequent",
	"TakeExit": "frequent", "NoteRefusal": "frequent", "LeaveExit": "frequent", "PutOutlineProbe": "frequent", "SetOutlineHealth": "follows from probes",
	"PutQuotaLease": "frequent", "BookQuotaLease": "frequent", "PutQuota": "frequent",
	"PutRecoveryCodes": "part of PutSignIn", "NoteSignIn": "follows from a login", "PutKnownClient": "follows from a login",
	"DropKnownClients": "follows from a login", "TouchLogin": "frequent",
	"ClaimDeliveries": "frequent", "EndAttempt": "frequent", "NoteWebhook": "follows from an attempt",
	"EndWebhookSecret": "part of InsertWebhookSecret", "DropWebhookSecrets": "part of InsertWebhookSecret",
	"TellEnd": "follows from the clock", "SetGatewayDown": "follows from heartbeats",
	// what has been over for long
	"PruneEvents": "pruning", "PruneInvitations": "pruning", "PruneSessions": "pruning", "PruneOnceResults": "pruning", "PruneAPITokens": "pruning", "PruneLogins": "pruning",
	"PruneQuotaLeases": "pruning", "PruneBulkJobs": "pruning", "PruneDeliveries": "pruning", "PruneWebhookSecrets": "pruning", "CompactUsage": "pruning",
	// what only looks
	"LastRefusal": "", "AuditHead": "", "AuditEntry": "", "AuditEntries": "", "LockService": "", "Setting": "", "Secrets": "", "OnceResult": "", "User": "", "LockUser": "",
	"UserByName": "", "Users": "", "SearchUsers": "", "Plan": "", "Plans": "", "Subscription": "", "Subscriptions": "", "Entitlements": "", "Entitlement": "",
	"Device": "", "Devices": "", "DevicesInUse": "", "SearchDevices": "", "Invitation": "", "InvitationByCode": "", "Invitations": "", "Region": "",
	"RegionByCode": "", "Regions": "", "Gateway": "", "GatewayByJoinCode": "", "Gateways": "", "LiveGateways": "", "Session": "", "Sessions": "",
	"UnwantedSessions": "", "CountOperators": "", "Operator": "", "OperatorByName": "", "Operators": "", "OldestOperator": "", "APIToken": "", "APITokens": "",
	"SignIn": "", "AccountByName": "", "AccountOf": "", "HasRecoveryCode": "", "CountRecoveryCodes": "", "KnownClient": "", "OperatorInvitation": "",
	"Login": "", "Logins": "", "OperatorByLogin": "",
	"OperatorByToken": "", "KnockKeys": "", "SealedValues": "", "Events": "", "GatewaysOfUser": "", "UsageSession": "", "UsageOwner": "", "UsageReport": "",
	"UsageBefore": "", "UsageAfter": "", "UsedBytes": "", "UsageDays": "", "Counters": "", "UsageQuarters": "", "TotalDifferences": "", "TakeTime": "", "UsageAccount": "", "UsageSubscriptions": "", "UsageOrphans": "",
	"SessionDifferences": "", "BucketDifferences": "", "OutlineServer": "", "PeekOutlineServer": "", "OutlineServers": "", "OutlineKey": "",
	"EndBulkObject": "follows from a change", "BulkObjects": "", "BulkJob": "", "BulkJobs": "", "NextBulkObject": "", "BulkFailures": "",
	"PeekUser": "", "Webhook": "", "Webhooks": "", "EnabledWebhooks": "", "CountWebhooks": "", "CountPending": "", "CountDeliveries": "", "Deliveries": "",
	"DueWebhooks": "", "WebhookSummary": "", "UntoldEnds": "", "ChangedGateways": "",
	"Quota": "", "QuotaLease": "", "QuotaReserved": "", "UsageOfProcess": "", "OutlineChoices": "", "CountOutlineSessions": "", "SessionExit": "", "OutlineProbe": "", "OutlineProbes": "", "OutlineSummary": "",
}

// A method of Tx that is new has to be audited, or say here why it is not.
func TestEveryChangeOfARecordIsAuditedOrSaysWhyNot(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "audited.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	audited := make(map[string]bool)
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv == nil {
			continue
		}
		if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok && star.X.(*ast.Ident).Name == "audited" {
			audited[f.Name.Name] = true
		}
	}
	methods := reflect.TypeFor[control.Tx]()
	for method := range methods.Methods() {
		name := method.Name
		if _, said := unaudited[name]; said == audited[name] {
			t.Errorf("Tx.%s: audited %v, in the list of those that are not %v", name, audited[name], said)
		}
	}
	for name := range unaudited {
		if _, ok := methods.MethodByName(name); !ok {
			t.Errorf("Tx has no %s", name)
		}
	}
}

// history makes some entries and returns how many there are.
func (w *world) history() int64 {
	w.t.Helper()
	owner := w.owner()
	ctx, err := control.ByOperator(control.WithActor(w.t.Context(), control.Actor{Address: "192.0.2.1"}), owner, "because")
	if err != nil {
		w.t.Fatal(err)
	}
	for n := range 3 {
		user, _, err := w.CreateUser(ctx, control.UserFields{Name: new(fmt.Sprint("user ", n))}, control.Once{})
		if err != nil {
			w.t.Fatal(err)
		}
		ok[control.User](w.t)(w.UpdateUser(ctx, user.ID, control.UserFields{Note: new("noted")}))
	}
	v := ok[control.AuditVerdict](w.t)(w.VerifyAudit(w.t.Context(), control.AuditHead{}))
	if v.Broken != 0 || v.Head.Number < 12 {
		w.t.Fatalf("before anything was changed: %+v", v)
	}
	return v.Head.Number
}

func TestWhatWasChangedInTheAuditLogIsNamedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		last := w.history()
		db := storetest.SQL(t, where.Path, where.URL)
		run := func(query string, args ...any) {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		names := func(what string, want int64) {
			t.Helper()
			v := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), control.AuditHead{}))
			if v.Broken != want || (v.Problem == "") != (want == 0) {
				t.Errorf("%s: broken is %d (%s), want %d", what, v.Broken, v.Problem, want)
			}
		}
		flipped := func(b []byte) []byte { b = append([]byte{}, b...); b[len(b)/2] ^= 1; return b }
		entries := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Oldest: true, Limit: int(last)}))
		for _, e := range entries {
			for column, was := range map[string]any{
				"at": e.At.UnixMicro(), "action": e.Action, "object_id": e.ObjectID, "actor_kind": string(e.Actor.Kind), "actor_id": e.Actor.ID,
				"actor_name": e.Actor.Name, "token_id": e.Actor.TokenID, "address": e.Actor.Address, "reason": e.Actor.Reason, "before": e.Before, "after": e.After,
				"hash": e.Hash, "signature": e.Signature,
			} {
				var is any
				switch was := was.(type) {
				case int64:
					is = was + 1
				case string:
					is = was + " "
				case []byte:
					is = flipped(was)
				}
				set := "UPDATE audit SET " + column + " = $1 WHERE number = $2"
				run(set, is, e.Number)
				names(fmt.Sprint(column, " of ", e.Number), e.Number)
				run(set, was, e.Number)
			}
		}
		names("all as it was", 0)
		run("UPDATE audit SET number = 1000 WHERE number = 4")
		names("one is missing in the middle", 4)
		run("UPDATE audit SET number = 4 WHERE number = 1000")
		run("UPDATE audit SET number = -1 WHERE number = 1")
		names("one stands before the first", -1)
		run("UPDATE audit SET number = 1 WHERE number = -1")
		run("UPDATE audit SET number = 1000 WHERE number = 5")
		run("UPDATE audit SET number = 5 WHERE number = 6")
		run("UPDATE audit SET number = 6 WHERE number = 1000")
		names("two in another order", 5)
		run("UPDATE audit SET number = 1000 WHERE number = 5")
		run("UPDATE audit SET number = 5 WHERE number = 6")
		run("UPDATE audit SET number = 6 WHERE number = 1000")
		end := entries[last-1]
		before := entries[last-2]
		run("DELETE FROM audit WHERE number = $1", last)
		names("the last is missing", last)
		head := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), control.AuditHead{})).Head
		run("UPDATE audit_head SET number = $1, hash = $2, signature = $3", before.Number, before.Hash, before.Signature)
		names("the last is missing and the end says so", last)
		run("UPDATE audit_head SET number = $1, hash = $2, signature = $3", last, head.Hash, flipped(head.Signature))
		run(`INSERT INTO audit (number, at, action, object_id, actor_kind, actor_id, actor_name, token_id, address, reason, before, after, hash, signature)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`, last, end.At.UnixMicro(), end.Action, end.ObjectID, string(end.Actor.Kind),
			end.Actor.ID, end.Actor.Name, end.Actor.TokenID, end.Actor.Address, end.Actor.Reason, end.Before, end.After, end.Hash, end.Signature)
		names("the end's signature", last+1)
		run("UPDATE audit_head SET signature = $1", head.Signature)
		names("all as it was again", 0)
		for what, known := range map[string]control.AuditHead{
			"another that is known":     {Number: 2, Hash: end.Hash},
			"a newer one that is known": {Number: last + 3, Hash: end.Hash},
		} {
			if v := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), known)); v.Broken == 0 {
				t.Errorf("%s is not missed", what)
			}
		}
		if v := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), control.AuditHead{Number: 2, Hash: entries[1].Hash})); v.Broken != 0 {
			t.Errorf("one that is known: %+v", v)
		}
	})
}

func TestTheAuditLogSaysWhoDidWhatAndKeepsNoSecretOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		w.history()
		invited := w.invite(w.subscriber(1, 1))
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), invited)).Device
		command := control.WithActor(t.Context(), control.Actor{Kind: control.ActorCommand, Name: "rescue"})
		link, _, err := w.Rescue(command)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(control.AccessTokenTTL)
		if _, err := w.RotateSigning(command); err != nil {
			t.Fatal(err)
		}
		if _, err := w.RotateKnock(command); err != nil {
			t.Fatal(err)
		}
		ring := keysIn(t, dir, false)
		second := ok[string](t)(ring.Add())
		if _, err := control.Reseal(command, records, ring, second); err != nil {
			t.Fatal(err)
		}
		entries := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Oldest: true, Limit: 500}))
		found := make(map[string]bool)
		for i, e := range entries {
			found[string(e.Actor.Kind)+" "+e.Action] = true
			if e.Number != int64(i)+1 {
				t.Errorf("entry %d has number %d", i+1, e.Number)
			}
			for _, secret := range []string{invited, code(t, link), w.Identity().Prefix, "hvt1."} {
				if strings.Contains(e.Before+e.After, secret) {
					t.Errorf("%s has a secret: %s %s", e.Action, e.Before, e.After)
				}
			}
		}
		for _, want := range []string{
			"system setting.changed", "system key.created", "system knock_key.created", "operator operator.created", "operator token.created", "operator user.created",
			"operator user.updated", "device device.created", "device invitation.used", "command setting.changed", "command token.deleted", "command key.created",
			"command knock_key.created",
		} {
			if !found[want] {
				t.Errorf("there is no %q", want)
			}
		}
		own := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{ActorID: device.ID, Limit: 9}))
		if len(own) != 2 || own[0].Number < own[1].Number {
			t.Errorf("the device did %+v", own)
		}
		changed := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "user.updated", Oldest: true, Limit: 1}))[0]
		if changed.Actor.Name != "root" || changed.Actor.Address != "192.0.2.1" || changed.Actor.Reason != "because" || changed.Actor.TokenID == "" ||
			!strings.Contains(changed.Before, `"note":""`) || !strings.Contains(changed.After, `"note":"noted"`) {
			t.Errorf("a change is %+v", changed)
		}
		if v := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), control.AuditHead{})); v.Broken != 0 {
			t.Errorf("after another key seals: %+v", v)
		}
	})
}

func TestAChangeThatFailsLeavesNoEntryAndNoChangeNone(t *testing.T) {
	w := newWorld(t)
	last := w.history()
	if _, _, err := w.CreateUser(t.Context(), control.UserFields{Name: new("user 1")}, control.Once{}); err == nil {
		t.Fatal("a name was given twice")
	}
	user := ok[[]control.User](t)(w.Users(t.Context(), "user 1", control.Page{Limit: 1}))[0]
	ok[control.User](t)(w.UpdateUser(t.Context(), user.ID, control.UserFields{Note: new("noted")}))
	if v := ok[control.AuditVerdict](t)(w.VerifyAudit(t.Context(), control.AuditHead{})); v.Head.Number != last {
		t.Errorf("%d entries, want %d", v.Head.Number, last)
	}
}
