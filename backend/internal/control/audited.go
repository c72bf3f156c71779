package control

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// audited is a unit of work that notes what it changes. Every method of Tx that
// changes what operators or devices decide is here; a test knows which are not, and
// why.
type audited struct {
	Tx
	now     func() time.Time
	entries []AuditEntry
	notices []notice // for webhooks, not written yet
	posted  bool     // some were written
}

// view is what the audit log shows of an object: never a secret, nor what one
// follows from.
type view map[string]any

func (v view) text() string {
	if v == nil {
		return ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // names, numbers and times marshal
	}
	return string(text)
}

// moment shows a time as it is kept.
func moment(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond)
}

// note adds an entry, unless nothing has changed.
func (u *audited) note(ctx context.Context, action, id string, before, after view) {
	e := AuditEntry{
		At: u.now().UTC().Truncate(time.Microsecond), Action: action, ObjectID: id, Actor: ActorOf(ctx), Before: before.text(), After: after.text(),
	}
	if e.Before != e.After {
		u.entries = append(u.entries, e)
	}
}

// insert notes an object that was made.
func insert(ctx context.Context, u *audited, kind, id string, after view, err error) error {
	if err == nil {
		u.note(ctx, kind+".created", id, nil, after)
	}
	return err
}

// change does something to an object, and notes what it was before and what it is
// then. One that there is not is for do to find out.
func change[T any](
	ctx context.Context, u *audited, action, id string, get func(context.Context, string) (T, error), show func(T) view, do func() error,
) error {
	before, err := get(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	there := err == nil
	if err := do(); err != nil || !there {
		return err
	}
	after, err := get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		u.note(ctx, action, id, show(before), nil)
	case err != nil:
		return err
	default:
		u.note(ctx, action, id, show(before), show(after))
	}
	return nil
}

func showUser(o User) view {
	v := view{"name": o.Name, "note": o.Note, "disabled_at": moment(o.DisabledAt)}
	if !o.Limits.Empty() {
		v["limits"] = showLimits(o.Limits)
	}
	return v
}

func (u *audited) UpdateLimits(ctx context.Context, o User) error {
	return change(ctx, u, "user.limits_changed", o.ID, u.User, func(o User) view { return showLimits(o.Limits) },
		func() error { return u.Tx.UpdateLimits(ctx, o) })
}

func (u *audited) InsertUser(ctx context.Context, o User) error {
	return insert(ctx, u, "user", o.ID, showUser(o), u.Tx.InsertUser(ctx, o))
}

func (u *audited) UpdateUser(ctx context.Context, o User) error {
	return change(ctx, u, "user.updated", o.ID, u.User, showUser, func() error { return u.Tx.UpdateUser(ctx, o) })
}

func (u *audited) DeleteUser(ctx context.Context, id string) error {
	return change(ctx, u, "user.deleted", id, u.User, showUser, func() error { return u.Tx.DeleteUser(ctx, id) })
}

func showPlan(o Plan) view {
	return view{
		"name": o.Name, "max_devices": o.MaxDevices, "max_sessions": o.MaxSessions, "max_streams": o.MaxStreams, "max_udp": o.MaxUDP,
		"duration_days": o.DurationDays, "starts_on_first_use": o.StartsOnFirstUse, "regions": append([]string{}, o.Regions...),
		"speed_up_bps": o.SpeedUpBPS, "speed_down_bps": o.SpeedDownBPS, "quota_bytes": o.QuotaBytes, "quota_period": o.QuotaPeriod, "time_zone": o.TimeZone,
		"quota_action": o.QuotaAction, "throttle_bps": o.ThrottleBPS, "quota_warnings": append([]int{}, o.QuotaWarnings...),
		"egress": o.Egress,
	}
}

func (u *audited) InsertPlan(ctx context.Context, o Plan) error {
	return insert(ctx, u, "plan", o.ID, showPlan(o), u.Tx.InsertPlan(ctx, o))
}

func (u *audited) UpdatePlan(ctx context.Context, o Plan) error {
	return change(ctx, u, "plan.updated", o.ID, u.Plan, showPlan, func() error { return u.Tx.UpdatePlan(ctx, o) })
}

func (u *audited) DeletePlan(ctx context.Context, id string) error {
	return change(ctx, u, "plan.deleted", id, u.Plan, showPlan, func() error { return u.Tx.DeletePlan(ctx, id) })
}

func showSubscription(o Subscription) view {
	return view{"user_id": o.UserID, "plan_id": o.PlanID, "starts_at": moment(&o.StartsAt), "ends_at": moment(o.EndsAt), "awaits_use": o.AwaitsUse}
}

func (u *audited) InsertSubscription(ctx context.Context, o Subscription) error {
	return insert(ctx, u, "subscription", o.ID, showSubscription(o), u.Tx.InsertSubscription(ctx, o))
}

func (u *audited) UpdateSubscription(ctx context.Context, o Subscription) error {
	return change(ctx, u, "subscription.updated", o.ID, u.Subscription, showSubscription, func() error { return u.Tx.UpdateSubscription(ctx, o) })
}

func (u *audited) BeginSubscription(ctx context.Context, o Subscription) (begun bool, err error) {
	err = change(ctx, u, "subscription.begun", o.ID, u.Subscription, showSubscription, func() error {
		begun, err = u.Tx.BeginSubscription(ctx, o)
		return err
	})
	return begun, err
}

func (u *audited) DeleteSubscription(ctx context.Context, id string) error {
	return change(ctx, u, "subscription.deleted", id, u.Subscription, showSubscription, func() error { return u.Tx.DeleteSubscription(ctx, id) })
}

func showDevice(o Device) view {
	return view{
		"user_id": o.UserID, "name": o.Name, "platform": o.Platform, "key_thumbprint": o.Thumbprint(), "generation": o.Generation,
		"revoked_at": moment(o.RevokedAt),
	}
}

func (u *audited) InsertDevice(ctx context.Context, o Device, limit int) (bool, error) {
	inserted, err := u.Tx.InsertDevice(ctx, o, limit)
	if inserted && err == nil {
		u.note(ctx, "device.created", o.ID, nil, showDevice(o))
	}
	return inserted, err
}

func (u *audited) RenameDevice(ctx context.Context, id, name string) error {
	return change(ctx, u, "device.updated", id, u.Device, showDevice, func() error { return u.Tx.RenameDevice(ctx, id, name) })
}

func (u *audited) RevokeDevice(ctx context.Context, id string, at time.Time) error {
	return change(ctx, u, "device.revoked", id, u.Device, showDevice, func() error { return u.Tx.RevokeDevice(ctx, id, at) })
}

func showInvitation(o Invitation) view {
	return view{"user_id": o.UserID, "expires_at": moment(&o.ExpiresAt), "used_at": moment(o.UsedAt), "device_id": o.DeviceID}
}

func (u *audited) InsertInvitation(ctx context.Context, o Invitation) error {
	return insert(ctx, u, "invitation", o.ID, showInvitation(o), u.Tx.InsertInvitation(ctx, o))
}

func (u *audited) RedeemInvitation(ctx context.Context, id, deviceID string, at time.Time) (redeemed bool, err error) {
	err = change(ctx, u, "invitation.used", id, u.Invitation, showInvitation, func() error {
		redeemed, err = u.Tx.RedeemInvitation(ctx, id, deviceID, at)
		return err
	})
	return redeemed, err
}

func (u *audited) DeleteInvitation(ctx context.Context, id string) error {
	return change(ctx, u, "invitation.deleted", id, u.Invitation, showInvitation, func() error { return u.Tx.DeleteInvitation(ctx, id) })
}

func showRegion(o Region) view { return view{"code": o.Code, "name": o.Name} }

func (u *audited) InsertRegion(ctx context.Context, o Region) error {
	return insert(ctx, u, "region", o.ID, showRegion(o), u.Tx.InsertRegion(ctx, o))
}

func (u *audited) UpdateRegion(ctx context.Context, o Region) error {
	return change(ctx, u, "region.updated", o.ID, u.Region, showRegion, func() error { return u.Tx.UpdateRegion(ctx, o) })
}

func (u *audited) DeleteRegion(ctx context.Context, id string) error {
	return change(ctx, u, "region.deleted", id, u.Region, showRegion, func() error { return u.Tx.DeleteRegion(ctx, id) })
}

// showGateway leaves out what heartbeats say.
func showGateway(o Gateway) view {
	return view{"name": o.Name, "region_id": o.RegionID, "joined_at": moment(o.JoinedAt), "drained_at": moment(o.DrainedAt)}
}

func (u *audited) InsertGateway(ctx context.Context, o Gateway) error {
	return insert(ctx, u, "gateway", o.ID, showGateway(o), u.Tx.InsertGateway(ctx, o))
}

func (u *audited) RedeemJoin(ctx context.Context, id string, j Joined) (redeemed bool, err error) {
	err = change(ctx, u, "gateway.joined", id, u.Gateway, showGateway, func() error {
		redeemed, err = u.Tx.RedeemJoin(ctx, id, j)
		return err
	})
	return redeemed, err
}

func (u *audited) SetDrained(ctx context.Context, id string, at *time.Time) error {
	action := "gateway.drained"
	if at == nil {
		action = "gateway.undrained"
	}
	return change(ctx, u, action, id, u.Gateway, showGateway, func() error { return u.Tx.SetDrained(ctx, id, at) })
}

func (u *audited) DeleteGateway(ctx context.Context, id string) error {
	return change(ctx, u, "gateway.deleted", id, u.Gateway, showGateway, func() error { return u.Tx.DeleteGateway(ctx, id) })
}

func (u *audited) AskClose(ctx context.Context, sessionID, why string) (bool, error) {
	asked, err := u.Tx.AskClose(ctx, sessionID, why)
	if asked && err == nil {
		u.note(ctx, "session.closed", sessionID, view{"close_reason": ""}, view{"close_reason": why})
	}
	return asked, err
}

func showOperator(o Operator) view {
	return view{"name": o.Name, "role": o.Role, "disabled_at": moment(o.DisabledAt)}
}

func (u *audited) InsertOperator(ctx context.Context, o Operator) error {
	return insert(ctx, u, "operator", o.ID, showOperator(o), u.Tx.InsertOperator(ctx, o))
}

func (u *audited) UpdateOperator(ctx context.Context, o Operator) error {
	return change(ctx, u, "operator.updated", o.ID, u.Operator, showOperator, func() error { return u.Tx.UpdateOperator(ctx, o) })
}

func (u *audited) DeleteOperator(ctx context.Context, id string) error {
	return change(ctx, u, "operator.deleted", id, u.Operator, showOperator, func() error { return u.Tx.DeleteOperator(ctx, id) })
}

func (u *audited) InsertBulkJob(ctx context.Context, o BulkJob, objects []BulkObject) error {
	return insert(ctx, u, "bulk", o.ID, showBulkJob(o), u.Tx.InsertBulkJob(ctx, o, objects))
}

func showAPIToken(o APIToken) view {
	return view{"operator_id": o.OperatorID, "role": o.Role, "expires_at": moment(&o.ExpiresAt)}
}

func (u *audited) InsertAPIToken(ctx context.Context, o APIToken) error {
	return insert(ctx, u, "token", o.ID, showAPIToken(o), u.Tx.InsertAPIToken(ctx, o))
}

func (u *audited) DeleteAPIToken(ctx context.Context, id string) error {
	return change(ctx, u, "token.deleted", id, u.APIToken, showAPIToken, func() error { return u.Tx.DeleteAPIToken(ctx, id) })
}

func (u *audited) DeleteAPITokens(ctx context.Context) (int, error) {
	n, err := u.Tx.DeleteAPITokens(ctx)
	if err == nil {
		u.note(ctx, "token.deleted", "", view{"tokens": n}, view{"tokens": 0})
	}
	return n, err
}

func showSignIn(s SignIn) view {
	return view{"password": "(secret)", "second_factor": "(secret)", "changed_at": moment(&s.ChangedAt)}
}

func showFailures(s SignIn) view { return view{"failures": s.Failures} }

func (u *audited) PutSignIn(ctx context.Context, o SignIn) error {
	before := view(nil)
	switch old, err := u.SignIn(ctx, o.OperatorID); {
	case err == nil:
		before = showSignIn(old)
	case !errors.Is(err, ErrNotFound):
		return err
	}
	err := u.Tx.PutSignIn(ctx, o)
	if err == nil {
		u.note(ctx, "operator.sign_in_changed", o.OperatorID, before, showSignIn(o))
	}
	return err
}

func (u *audited) AddFailures(ctx context.Context, operatorID string, n int) error {
	return change(ctx, u, "login.failed", operatorID, u.SignIn, showFailures, func() error { return u.Tx.AddFailures(ctx, operatorID, n) })
}

func (u *audited) DeleteSignIns(ctx context.Context) (int, error) {
	n, err := u.Tx.DeleteSignIns(ctx)
	if err == nil {
		u.note(ctx, "operator.sign_in_deleted", "", view{"sign_ins": n}, view{"sign_ins": 0})
	}
	return n, err
}

func (u *audited) TakeRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error) {
	taken, err := u.Tx.TakeRecoveryCode(ctx, operatorID, hash)
	if taken && err == nil {
		u.note(ctx, "operator.recovery_code_used", operatorID, view{"code": "(secret)"}, nil)
	}
	return taken, err
}

func (u *audited) PutOperatorInvitation(ctx context.Context, o OperatorInvitation) error {
	err := u.Tx.PutOperatorInvitation(ctx, o)
	if err == nil {
		u.note(ctx, "operator.invited", o.OperatorID, nil, view{"code": "(secret)", "expires_at": moment(&o.ExpiresAt)})
	}
	return err
}

func (u *audited) TakeOperatorInvitation(ctx context.Context, codeHash []byte) (bool, error) {
	invitation, err := u.OperatorInvitation(ctx, codeHash)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	taken, err := u.Tx.TakeOperatorInvitation(ctx, codeHash)
	if taken && err == nil {
		u.note(ctx, "operator.invitation_used", invitation.OperatorID, view{"code": "(secret)", "expires_at": moment(&invitation.ExpiresAt)}, nil)
	}
	return taken, err
}

func showLogin(o Login) view {
	return view{"operator_id": o.OperatorID, "cookie": o.Cookie, "address": o.Address, "expires_at": moment(&o.ExpiresAt)}
}

func (u *audited) InsertLogin(ctx context.Context, o Login) error {
	return insert(ctx, u, "login", o.ID, showLogin(o), u.Tx.InsertLogin(ctx, o))
}

func (u *audited) DeleteLogin(ctx context.Context, id string) error {
	return change(ctx, u, "login.deleted", id, u.Login, showLogin, func() error { return u.Tx.DeleteLogin(ctx, id) })
}

func (u *audited) DeleteLogins(ctx context.Context) (int, error) {
	n, err := u.Tx.DeleteLogins(ctx)
	if err == nil {
		u.note(ctx, "login.deleted", "", view{"logins": n}, view{"logins": 0})
	}
	return n, err
}

func showOutlineServer(o OutlineServer) view {
	return view{
		"name": o.Name, "region_id": o.RegionID, "host": o.Host, "port": o.Port, "weight": o.Weight, "priority": o.Priority, "capacity": o.Capacity,
		"managed": o.Managed, "fallback": o.Fallback, "disabled_at": moment(o.DisabledAt),
	}
}

func (u *audited) InsertOutlineServer(ctx context.Context, o OutlineServer) error {
	return insert(ctx, u, "outline_server", o.ID, showOutlineServer(o), u.Tx.InsertOutlineServer(ctx, o))
}

func (u *audited) UpdateOutlineServer(ctx context.Context, o OutlineServer) error {
	return change(ctx, u, "outline_server.updated", o.ID, u.PeekOutlineServer, showOutlineServer, func() error { return u.Tx.UpdateOutlineServer(ctx, o) })
}

func (u *audited) DeleteOutlineServer(ctx context.Context, id string) error {
	return change(ctx, u, "outline_server.deleted", id, u.PeekOutlineServer, showOutlineServer, func() error { return u.Tx.DeleteOutlineServer(ctx, id) })
}

func showOutlineKey(o SealedOutlineKey) view {
	return view{"generation": o.Generation, "cipher": o.Cipher, "password": "(secret)"}
}

func (u *audited) PutOutlineKey(ctx context.Context, o SealedOutlineKey) error {
	before := view(nil)
	switch old, err := u.OutlineKey(ctx, o.ServerID); {
	case err == nil:
		before = showOutlineKey(old)
	case !errors.Is(err, ErrNotFound):
		return err
	}
	err := u.Tx.PutOutlineKey(ctx, o)
	if err == nil {
		u.note(ctx, "outline_server.key_changed", o.ServerID, before, showOutlineKey(o))
	}
	return err
}

// openSettings are those that are no secrets.
var openSettings = map[string]bool{settingServiceID: true, settingIssuer: true, settingSealingKey: true}

func (u *audited) PutSetting(ctx context.Context, name, value string) error {
	if name == settingService {
		return change(ctx, u, "settings.updated", "", func(ctx context.Context, _ string) (keptSettings, error) { return readSettings(ctx, u.Tx) },
			showKept, func() error { return u.Tx.PutSetting(ctx, name, value) })
	}
	err := u.Tx.PutSetting(ctx, name, value)
	if err == nil {
		if !openSettings[name] {
			value = "(secret)"
		}
		u.note(ctx, "setting.changed", name, nil, view{"value": value})
	}
	return err
}

func (u *audited) TakeSetting(ctx context.Context, name, value string) (bool, error) {
	taken, err := u.Tx.TakeSetting(ctx, name, value)
	if taken && err == nil {
		u.note(ctx, "setting.used", name, view{"value": "(secret)"}, nil)
	}
	return taken, err
}

func (u *audited) InsertSecret(ctx context.Context, o SealedSecret) error {
	return insert(ctx, u, "key", o.ID, view{"kind": o.Kind, "value": "(secret)"}, u.Tx.InsertSecret(ctx, o))
}

func (u *audited) DeleteSecret(ctx context.Context, id string) error {
	err := u.Tx.DeleteSecret(ctx, id)
	if err == nil {
		u.note(ctx, "key.deleted", id, view{"value": "(secret)"}, nil)
	}
	return err
}

func (u *audited) InsertKnockKey(ctx context.Context, o SealedKnockKey) error {
	return insert(ctx, u, "knock_key", strconv.FormatInt(o.Number, 10), view{"active_from": moment(&o.ActiveFrom), "value": "(secret)"}, u.Tx.InsertKnockKey(ctx, o))
}

func (u *audited) DeleteKnockKey(ctx context.Context, number int64) error {
	err := u.Tx.DeleteKnockKey(ctx, number)
	if err == nil {
		u.note(ctx, "knock_key.deleted", strconv.FormatInt(number, 10), view{"value": "(secret)"}, nil)
	}
	return err
}

// showWebhook is what the audit log shows: of the URL where it leads, and whether the
// rest, which may have a secret, has changed.
func showWebhook(h Webhook) view {
	return view{
		"url": h.origin(), "url_fingerprint": h.fingerprint(), "description": h.Description, "events": append([]NoticeType{}, h.Events...),
		"disabled_at": moment(h.DisabledAt), "disabled_why": h.DisabledWhy,
	}
}

func (u *audited) InsertWebhook(ctx context.Context, o Webhook) error {
	return insert(ctx, u, "webhook", o.ID, showWebhook(o), u.Tx.InsertWebhook(ctx, o))
}

func (u *audited) UpdateWebhook(ctx context.Context, o Webhook) error {
	return change(ctx, u, "webhook.updated", o.ID, u.Webhook, showWebhook, func() error { return u.Tx.UpdateWebhook(ctx, o) })
}

func (u *audited) DisableWebhook(ctx context.Context, id string, why WebhookDisabled, at time.Time) error {
	// Whatever it follows from, nobody has decided it.
	return change(WithActor(ctx, Actor{Kind: ActorSystem}), u, "webhook.disabled", id, u.Webhook, showWebhook, func() error { return u.Tx.DisableWebhook(ctx, id, why, at) })
}

func (u *audited) DeleteWebhook(ctx context.Context, id string) error {
	return change(ctx, u, "webhook.deleted", id, u.Webhook, showWebhook, func() error { return u.Tx.DeleteWebhook(ctx, id) })
}

func (u *audited) InsertWebhookSecret(ctx context.Context, o SealedWebhookSecret) error {
	err := u.Tx.InsertWebhookSecret(ctx, o)
	if err == nil {
		before := view(nil)
		if o.Generation > 1 {
			before = view{"generation": o.Generation - 1, "secret": "(secret)"}
		}
		u.note(ctx, "webhook.secret_changed", o.WebhookID, before, view{"generation": o.Generation, "secret": "(secret)"})
	}
	return err
}

// Redeliver is noted as a whole: each message says itself how often it was tried.
func (u *audited) Redeliver(ctx context.Context, webhookID string, ids []string, now time.Time, limit int) (int, error) {
	n, err := u.Tx.Redeliver(ctx, webhookID, ids, now, limit)
	if err == nil && n > 0 {
		u.note(ctx, "webhook.redelivered", webhookID, nil, view{"deliveries": n})
	}
	return n, err
}

// InsertDelivery notes those alone that somebody has asked for: the others follow from
// changes.
func (u *audited) InsertDelivery(ctx context.Context, o Delivery) error {
	err := u.Tx.InsertDelivery(ctx, o)
	if err == nil && o.Type == NoticeTest {
		u.note(ctx, "webhook.tested", o.WebhookID, nil, view{"delivery_id": o.ID})
	}
	return err
}
