package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// BulkAction is what is done to many objects. The texts are part of the API.
type BulkAction string

// The actions. Each is for what it would change: of users, of their devices, or of
// their subscriptions.
const (
	BulkDisable BulkAction = "disable" // users that are not
	BulkEnable  BulkAction = "enable"  // users that are disabled
	BulkDelete  BulkAction = "delete"  // users
	BulkInvite  BulkAction = "invite"  // users: one device of each
	BulkRevoke  BulkAction = "revoke"  // devices that are in use
	BulkExtend  BulkAction = "extend"  // of each user the subscription that ends last, unless one is without end
	BulkMove    BulkAction = "move"    // subscriptions that have not ended, to another plan
	BulkLimit   BulkAction = "limit"   // users: what holds for them whatever their plans say
)

// BulkActions returns all of them.
func BulkActions() []BulkAction {
	return []BulkAction{BulkDisable, BulkEnable, BulkDelete, BulkInvite, BulkRevoke, BulkExtend, BulkMove, BulkLimit}
}

const (
	// MaxBulkObjects is how many objects one job may have.
	MaxBulkObjects = 100_000
	// MaxBulkIDs is how many users may be named one by one.
	MaxBulkIDs = 1000
	// MaxBulkPiece is how many objects one call of RunBulk does at most, and maxBulkTime
	// after how long it takes up no other one.
	MaxBulkPiece = 500
	maxBulkTime  = 5 * time.Second
	// bulkSample is how many objects a preview shows.
	bulkSample = 20
	// MaxBulkFailures is how many of those that failed a job shows.
	MaxBulkFailures = 100
	// keepBulkJobs is how long a job can be looked at, and be finished.
	keepBulkJobs = 30 * 24 * time.Hour
)

// BulkFilter selects users by all that is given; at least one field has to be. The
// JSON is how jobs are kept.
type BulkFilter struct {
	UserIDs []string `json:"user_ids,omitempty"`
	Search  string   `json:"search,omitempty"`  // whose name begins so, as in SearchUsers
	PlanID  string   `json:"plan_id,omitempty"` // with a subscription to it; what is done to subscriptions is done to these alone
	// RegionID is of those with a subscription whose plan names the region.
	RegionID string `json:"region_id,omitempty"`
	Disabled *bool  `json:"disabled,omitempty"`
	// ExpiredBefore is of those whose subscriptions had all ended by then, with one at least.
	ExpiredBefore *time.Time `json:"expired_before,omitempty"`
	// NoSessionSince is of those without a session or a device's sign of life since then.
	// By itself it looks at every user.
	NoSessionSince *time.Time `json:"no_session_since,omitempty"`
	All            bool       `json:"all,omitempty"` // every user: for who means it
}

func (f BulkFilter) empty() bool {
	return len(f.UserIDs) == 0 && f.Search == "" && f.PlanID == "" && f.RegionID == "" && f.Disabled == nil && f.ExpiredBefore == nil &&
		f.NoSessionSince == nil && !f.All
}

// BulkRequest says what is to be done, and to what.
type BulkRequest struct {
	Action BulkAction `json:"action"`
	Filter BulkFilter `json:"filter"`
	// Days or EndsAt are for BulkExtend: by so many days from its end, or from now when
	// that is past; or to a time, where the end is before that.
	Days   int          `json:"days,omitempty"`
	EndsAt *time.Time   `json:"ends_at,omitempty"`
	PlanID string       `json:"plan_id,omitempty"` // for BulkMove: to which
	TTL    int          `json:"ttl,omitempty"`     // for BulkInvite, in seconds; 0: what the settings say
	Limits LimitsChange `json:"limits,omitzero"`   // for BulkLimit
}

func (r BulkRequest) check(ctx context.Context, tx Tx) error {
	var c checks
	known := false
	for _, action := range BulkActions() {
		known = known || action == r.Action
	}
	c.that(known, "action", "want disable, enable, delete, invite, revoke, extend, move or limit")
	c.that(!r.Filter.empty(), "filter", "say which users, or all: nothing is selected")
	c.that(len(r.Filter.UserIDs) <= MaxBulkIDs, "filter.user_ids", "want at most 1000")
	extends := r.Action == BulkExtend
	c.that(extends == (r.Days != 0 || r.EndsAt != nil) && (r.Days == 0 || r.EndsAt == nil), "days", "want days or ends_at with extend, and with nothing else")
	if r.Days != 0 {
		c.between(r.Days, 1, MaxPlanDays, "days", "want 1 to 36500")
	}
	if r.EndsAt != nil {
		c.between(r.EndsAt.UTC().Year(), 1970, 9999, "ends_at", "want a year from 1970 to 9999 in UTC")
	}
	if r.TTL != 0 {
		c.that(r.Action == BulkInvite, "ttl_seconds", "only with invite")
		c.between(r.TTL, int(time.Minute/time.Second), int(MaxInvitationTTL/time.Second), "ttl_seconds", "want 60 to 2592000 (30 days)")
	}
	c.that((r.PlanID != "") == (r.Action == BulkMove), "plan_id", "want the plan to move to with move, and with nothing else")
	if r.PlanID != "" {
		_, err := tx.Plan(ctx, r.PlanID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c.that(err == nil, "plan_id", "no such plan")
	}
	c.that((r.Limits != LimitsChange{}) == (r.Action == BulkLimit), "limits", "want what to change with limit, and with nothing else")
	if err := new(Limits).apply(ctx, tx, r.Limits); err != nil {
		invalid, ok := errors.AsType[*InvalidError](err)
		if !ok {
			return err
		}
		for _, f := range invalid.Fields {
			c.that(false, "limits."+f.Field, f.Detail)
		}
	}
	return c.err()
}

// BulkObject is what an action is done to.
type BulkObject struct {
	Position int // in its job, from 1
	UserID   string
	UserName string
	ObjectID string // of the user, the device or the subscription
	Before   string // what the action would change about it; of a preview only
	Error    string // what was in the way, for people; empty: nothing
	Link     string // of an invitation that was made just now
}

// BulkPreview is what an action would be done to.
type BulkPreview struct {
	Objects int
	Users   int
	Sample  []BulkObject // the first
	// Token is of exactly these objects, as they are, and what is to be done to them.
	Token string
}

// BulkJob is an action on many objects.
type BulkJob struct {
	ID         string
	OperatorID string // who has begun it
	Request    BulkRequest
	Objects    int
	Done       int
	Failed     int
	CreatedAt  time.Time
}

// Left is how many objects are left to do.
func (j BulkJob) Left() int { return j.Objects - j.Done - j.Failed }

type bulkRows interface {
	// BulkObjects calls add with at most limit of the objects that a request selects at
	// now, by user and id.
	BulkObjects(ctx context.Context, r BulkRequest, now time.Time, limit int, add func(BulkObject)) error
	InsertBulkJob(ctx context.Context, j BulkJob, objects []BulkObject) error
	// BulkJob returns a job; in Write nobody else works on it until the unit of work ends.
	BulkJob(ctx context.Context, id string) (BulkJob, error)
	BulkJobs(ctx context.Context, page Page) ([]BulkJob, error)
	// NextBulkObject returns the first object that is left.
	NextBulkObject(ctx context.Context, jobID string) (BulkObject, error)
	// EndBulkObject says what became of an object that is left, and counts it.
	EndBulkObject(ctx context.Context, jobID string, o BulkObject) error
	// BulkFailures returns at most limit of the objects that failed.
	BulkFailures(ctx context.Context, jobID string, limit int) ([]BulkObject, error)
	// PruneBulkJobs deletes at most limit objects of jobs from before a time, and those
	// jobs that have none, and returns how many.
	PruneBulkJobs(ctx context.Context, createdBefore time.Time, limit int) (int, error)
}

// selection is what a request selects, as it is seen from one unit of work.
type selection struct {
	BulkPreview
	all []BulkObject // nil: they are not kept
}

// selectBulk looks for the objects of a request. keep says whether they are all kept.
func (a *Authority) selectBulk(ctx context.Context, tx Tx, r BulkRequest, keep bool) (selection, error) {
	var s selection
	if err := r.check(ctx, tx); err != nil {
		return s, err
	}
	digest := sha256.New()
	said, err := json.Marshal(r)
	if err != nil {
		return s, fmt.Errorf("marshal bulk request: %w", err)
	}
	digest.Write(said)
	last := ""
	err = tx.BulkObjects(ctx, r, a.now(), MaxBulkObjects+1, func(o BulkObject) {
		s.Objects++
		if o.UserID != last {
			s.Users++
			last = o.UserID
		}
		o.Position = s.Objects
		digest.Write(fmt.Appendf(nil, "\x00%s\x00%s\x00%s", o.UserID, o.ObjectID, o.Before)) // ids have no zero bytes
		if len(s.Sample) < bulkSample {
			s.Sample = append(s.Sample, o)
		}
		if keep && s.Objects <= MaxBulkObjects {
			s.all = append(s.all, o)
		}
	})
	if err == nil && s.Objects > MaxBulkObjects {
		err = &InvalidError{Fields: []FieldError{{Field: "filter", Detail: "selects more than 100000 objects: narrow it"}}}
	}
	s.Token = hex.EncodeToString(digest.Sum(nil))
	return s, err
}

// PreviewBulk says what a request would be done to. It changes nothing.
func (a *Authority) PreviewBulk(ctx context.Context, r BulkRequest) (BulkPreview, error) {
	var s selection
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		s, err = a.selectBulk(ctx, tx, r, false)
		return err
	})
	return s.BulkPreview, err
}

// ErrBulkChanged says that a request selects other objects than its preview showed, or
// that they are no longer as they were then.
var ErrBulkChanged = errors.New("what was previewed has changed")

// CreateBulk begins a job for exactly what a preview showed, whose token it is, and
// does nothing yet: that is for RunBulk. The second result is as in CreateUser.
func (a *Authority) CreateBulk(ctx context.Context, r BulkRequest, token string, once Once) (BulkJob, bool, error) {
	job := BulkJob{ID: newID(), OperatorID: once.OperatorID, Request: r, CreatedAt: a.now()}
	return create(ctx, a, once, job.ID, func(ctx context.Context, tx Tx) error {
		s, err := a.selectBulk(ctx, tx, r, true)
		if err != nil {
			return err
		}
		if s.Token != token {
			return ErrBulkChanged
		}
		job := job // fn may run again
		job.Objects = s.Objects
		return tx.InsertBulkJob(ctx, job, s.all)
	}, Tx.BulkJob)
}

// BulkJobs lists jobs.
func (a *Authority) BulkJobs(ctx context.Context, page Page) ([]BulkJob, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]BulkJob, error) { return tx.BulkJobs(ctx, page) })
}

// BulkJob returns a job with the first of the objects that failed.
func (a *Authority) BulkJob(ctx context.Context, id string) (job BulkJob, failed []BulkObject, err error) {
	err = a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		if job, err = tx.BulkJob(ctx, id); err != nil {
			return err
		}
		failed, err = tx.BulkFailures(ctx, id, MaxBulkFailures)
		return err
	})
	return job, failed, err
}

// RunBulk does the next piece of a job and returns what it was done to. Each object is
// a unit of work of its own, with the note that it is done: whoever calls again, after a
// crash too and beside others, goes on with what is left. What is in the way of one
// object does not keep back the others. Links of invitations are nowhere else to be had.
func (a *Authority) RunBulk(ctx context.Context, id string) (job BulkJob, objects []BulkObject, err error) {
	began := time.Now()
	for len(objects) < MaxBulkPiece && (len(objects) == 0 || time.Since(began) < maxBulkTime) {
		object, err := a.nextBulk(ctx, id)
		if errors.Is(err, errBulkOver) {
			break
		}
		if err != nil {
			return BulkJob{}, objects, err
		}
		objects = append(objects, object)
	}
	job, err = get(ctx, a, id, Tx.BulkJob)
	return job, objects, err
}

// errBulkOver says that a job has nothing left to do.
var errBulkOver = errors.New("nothing is left of the job")

// nextBulk does a job's action to the first object that is left.
func (a *Authority) nextBulk(ctx context.Context, id string) (object BulkObject, err error) {
	var refused error
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		refused = nil
		job, err := tx.BulkJob(ctx, id)
		if err != nil {
			return err
		}
		object, err = tx.NextBulkObject(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return errBulkOver
		}
		if err != nil {
			return err
		}
		if object.Link, err = a.applyBulk(ctx, tx, job.Request, object); err != nil {
			refused = err
			return err
		}
		return tx.EndBulkObject(ctx, id, object)
	})
	if err == nil || refused == nil {
		return object, err
	}
	detail := bulkProblem(refused)
	if detail == "" {
		return object, err
	}
	object.Error, object.Link = detail, ""
	return object, a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if _, err := tx.BulkJob(ctx, id); err != nil {
			return err
		}
		return tx.EndBulkObject(ctx, id, object)
	})
}

// bulkProblem says for people what is in the way of one object, or nothing when it is
// in the way of all.
func bulkProblem(err error) string {
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		return invalid.Error()
	}
	if conflict, ok := errors.AsType[*ConflictError](err); ok {
		return conflict.Detail
	}
	if errors.Is(err, ErrNotFound) {
		return "it is gone"
	}
	return ""
}

// applyBulk does a request's action to an object, as if it were asked for alone. It
// returns the link of an invitation.
func (a *Authority) applyBulk(ctx context.Context, tx Tx, r BulkRequest, o BulkObject) (link string, err error) {
	switch r.Action {
	case BulkDisable, BulkEnable:
		_, err = a.updateUser(ctx, tx, o.ObjectID, UserFields{Disabled: new(r.Action == BulkDisable)})
	case BulkDelete:
		err = a.removeUser(ctx, tx, o.ObjectID)
	case BulkInvite:
		link, err = a.inviteAs(ctx, tx, newID(), o.ObjectID, time.Duration(r.TTL)*time.Second)
	case BulkRevoke:
		err = a.revokeDevice(ctx, tx, o.ObjectID)
	case BulkMove:
		_, err = a.updateSubscription(ctx, tx, o.ObjectID, SubscriptionFields{PlanID: &r.PlanID})
	case BulkLimit:
		_, err = a.updateLimits(ctx, tx, o.ObjectID, r.Limits)
	case BulkExtend:
		err = a.extend(ctx, tx, o.ObjectID, r)
	default:
		err = fmt.Errorf("bulk action %q is not known", r.Action)
	}
	return link, err
}

// extend moves the end of a subscription, unless it is late enough.
func (a *Authority) extend(ctx context.Context, tx Tx, id string, r BulkRequest) error {
	sub, err := tx.Subscription(ctx, id)
	if err != nil {
		return err
	}
	if sub.EndsAt == nil {
		return nil
	}
	ends := *sub.EndsAt
	switch {
	case r.EndsAt == nil:
		if now := a.now(); ends.Before(now) {
			ends = now
		}
		ends = ends.AddDate(0, 0, r.Days)
	case !ends.Before(*r.EndsAt):
		return nil
	default:
		ends = *r.EndsAt
	}
	_, err = a.updateSubscription(ctx, tx, id, SubscriptionFields{EndsAt: &ends})
	return err
}

// showBulkJob is what the audit log shows of a job; each object has entries of its own.
func showBulkJob(j BulkJob) view {
	v := view{"action": j.Request.Action, "objects": j.Objects}
	for name, value := range map[string]any{"days": j.Request.Days, "plan_id": j.Request.PlanID, "ends_at": moment(j.Request.EndsAt)} {
		if value != nil && value != 0 && value != "" {
			v[name] = value
		}
	}
	if j.Request.Action == BulkLimit {
		v["limits"] = j.Request.Limits
	}
	if said, err := json.Marshal(j.Request.Filter); err == nil {
		v["filter"] = json.RawMessage(strings.TrimSpace(string(said)))
	}
	return v
}
