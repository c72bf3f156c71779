package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Notices are what webhooks are told of. They are written with the change that causes
// them, so that none is lost and none is told of what has not happened. See ADR 0030.

// NoticeType says what happened. The texts are part of the API.
type NoticeType string

// What webhooks are told about.
const (
	NoticeUserCreated   NoticeType = "user.created"
	NoticeUserDisabled  NoticeType = "user.disabled"
	NoticeUserEnabled   NoticeType = "user.enabled"
	NoticeUserRemoved   NoticeType = "user.removed"
	NoticeUserExpired   NoticeType = "user.expired"        // his last subscription has ended
	NoticeQuotaWarning  NoticeType = "user.quota_warning"  // one of the plan's quota_warnings is reached
	NoticeQuotaExceeded NoticeType = "user.quota_exceeded" // all of the quota is used

	NoticeDeviceEnrolled NoticeType = "device.enrolled"
	NoticeDeviceRevoked  NoticeType = "device.revoked"

	NoticeGatewayDown NoticeType = "gateway.down" // not heard of for three heartbeats
	NoticeGatewayUp   NoticeType = "gateway.up"
	NoticeOutlineDown NoticeType = "outline.down" // as most gateways find
	NoticeOutlineUp   NoticeType = "outline.up"

	NoticeLoginFailed  NoticeType = "login.failed" // of an operator
	NoticeBackupFailed NoticeType = "backup.failed"

	// NoticeTest is sent when an operator asks for it, to one webhook, whatever that
	// wants.
	NoticeTest NoticeType = "webhook.test"
)

// NoticeTypes returns those that webhooks can want.
func NoticeTypes() []NoticeType {
	return []NoticeType{
		NoticeUserCreated, NoticeUserDisabled, NoticeUserEnabled, NoticeUserRemoved, NoticeUserExpired, NoticeQuotaWarning, NoticeQuotaExceeded,
		NoticeDeviceEnrolled, NoticeDeviceRevoked, NoticeGatewayDown, NoticeGatewayUp, NoticeOutlineDown, NoticeOutlineUp,
		NoticeLoginFailed, NoticeBackupFailed,
	}
}

// noticeVersion is of the form of all payloads. Members may be added without another.
const noticeVersion = 1

// notice is something that webhooks are told of.
type notice struct {
	Type   NoticeType
	Object string // whose notices keep their order: an id, or a word where there is one of a kind
	At     time.Time
	Data   noticeData
}

// noticeData says what a notice is about: ids and names, and never a secret.
type noticeData struct {
	User         *noticeUser         `json:"user,omitempty"`
	Subscription *noticeSubscription `json:"subscription,omitempty"`
	Quota        *noticeQuota        `json:"quota,omitempty"`
	Device       *noticeDevice       `json:"device,omitempty"`
	Gateway      *noticeGateway      `json:"gateway,omitempty"`
	Outline      *noticeOutline      `json:"outline_server,omitempty"`
	Operator     *noticeOperator     `json:"operator,omitempty"`
	Backup       *noticeBackup       `json:"backup,omitempty"`
	Webhook      *noticeWebhook      `json:"webhook,omitempty"`
}

type noticeUser struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type noticeSubscription struct {
	ID       string     `json:"id"`
	PlanID   string     `json:"plan_id"`
	PlanName string     `json:"plan_name"`
	EndsAt   *time.Time `json:"ends_at"`
}

type noticeQuota struct {
	Percent    int        `json:"percent"`
	Bytes      int64      `json:"bytes"`
	Used       int64      `json:"used"`
	Action     string     `json:"action"` // when it is used up
	PeriodFrom time.Time  `json:"period_from"`
	PeriodTo   *time.Time `json:"period_to"`
}

type noticeDevice struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Platform string `json:"platform"`
}

type noticeGateway struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Region string    `json:"region"`
	Since  time.Time `json:"down_since"`
}

type noticeOutline struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Region string    `json:"region"`
	Since  time.Time `json:"down_since"`
}

type noticeOperator struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Attempts int    `json:"attempts"`
	Address  string `json:"address,omitempty"` // of the attempt, when there was one
}

type noticeBackup struct {
	Step string `json:"step"` // make or verify
}

type noticeWebhook struct {
	ID string `json:"id"`
}

func aboutUser(u User) *noticeUser { return &noticeUser{ID: u.ID, Name: u.Name} }

func aboutSubscription(e Entitlement) *noticeSubscription {
	return &noticeSubscription{ID: e.ID, PlanID: e.PlanID, PlanName: e.Plan.Name, EndsAt: inUTC(e.EndsAt)}
}

func aboutDevice(d Device) *noticeDevice {
	return &noticeDevice{ID: d.ID, Name: d.Name, Platform: d.Platform}
}

func aboutGateway(g Gateway, since time.Time) *noticeGateway {
	return &noticeGateway{ID: g.ID, Name: g.Name, Region: g.Region, Since: since.UTC()}
}

func aboutOutline(s OutlineServer, since time.Time) *noticeOutline {
	return &noticeOutline{ID: s.ID, Name: s.Name, Region: s.Region, Since: since.UTC()}
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}

// payload is the body that is signed and sent.
func (n notice) payload() (string, error) {
	text, err := json.Marshal(struct {
		Type      NoticeType `json:"type"`
		Version   int        `json:"version"`
		Timestamp time.Time  `json:"timestamp"`
		Data      noticeData `json:"data"`
	}{n.Type, noticeVersion, n.At.UTC().Truncate(time.Microsecond), n.Data})
	if err != nil {
		return "", fmt.Errorf("marshal %s: %w", n.Type, err)
	}
	return string(text), nil
}

// announce has webhooks told of something when the unit of work ends well. Who
// announces holds the object, so that its notices are in the order of what happened.
func (a *Authority) announce(tx Tx, n notice) {
	unit, ok := tx.(*audited)
	if !ok {
		panic("control: a notice outside of a unit of work that writes")
	}
	n.At = a.now()
	unit.notices = append(unit.notices, n)
}

// announceUser is announce for what is said of a user.
func (a *Authority) announceUser(tx Tx, what NoticeType, user User) {
	a.announce(tx, notice{Type: what, Object: user.ID, Data: noticeData{User: aboutUser(user)}})
}

// post writes the notices of a unit of work for the webhooks that want them. It comes
// after everything that holds objects, and before the audit log.
func (u *audited) post(ctx context.Context) error {
	if len(u.notices) == 0 {
		return nil
	}
	hooks, err := u.EnabledWebhooks(ctx)
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	for _, n := range u.notices {
		if err := u.postTo(ctx, hooks, n); err != nil {
			return fmt.Errorf("webhooks: %w", err)
		}
	}
	return nil
}

func (u *audited) postTo(ctx context.Context, hooks []Webhook, n notice) error {
	payload, err := n.payload()
	if err != nil {
		return err
	}
	event := newID()
	for i := range hooks {
		hook := &hooks[i]
		if hook.DisabledAt != nil || !hook.wants(n.Type) {
			continue
		}
		waiting, err := u.CountPending(ctx, hook.ID, MaxPendingDeliveries)
		if err != nil {
			return err
		}
		if waiting >= MaxPendingDeliveries {
			hook.disable(WebhookQueueFull, n.At)
			// It may have gone meanwhile, or somebody else was faster.
			if err := u.DisableWebhook(ctx, hook.ID, WebhookQueueFull, n.At); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			continue
		}
		if err := u.InsertDelivery(ctx, newDelivery(hook.ID, event, n, payload)); err != nil {
			return err
		}
		u.posted = true
	}
	return nil
}

// newDelivery is a notice that is to be sent to a webhook.
func newDelivery(webhookID, event string, n notice, payload string) Delivery {
	at := n.At.UTC().Truncate(time.Microsecond)
	return Delivery{
		ID: newID(), WebhookID: webhookID, EventID: event, Type: n.Type, ObjectID: n.Object, Payload: payload,
		State: DeliveryPending, NextAt: at, CreatedAt: at,
	}
}

func (h Webhook) wants(what NoticeType) bool {
	return len(h.Events) == 0 || slices.Contains(h.Events, what)
}

// ReportBackupFailed has webhooks told that a backup was not made, or could not be
// restored for a try: step is make or verify.
func (a *Authority) ReportBackupFailed(ctx context.Context, step string) error {
	return a.store.Write(ctx, func(_ context.Context, tx Tx) error {
		a.announce(tx, notice{Type: NoticeBackupFailed, Object: "backup", Data: noticeData{Backup: &noticeBackup{Step: step}}})
		return nil
	})
}
