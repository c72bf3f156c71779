package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// BulkFilter selects users by everything that is given.
type BulkFilter struct {
	UserIDs        []string   `json:"user_ids,omitempty" maxItems:"1000" doc:"These. At most 1,000."`
	Search         string     `json:"search,omitempty" maxLength:"100" doc:"Whose name begins so. ASCII letters match in both cases."`
	PlanID         string     `json:"plan_id,omitempty" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"With a subscription to this plan. What is done to subscriptions is done to these alone."`
	RegionID       string     `json:"region_id,omitempty" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"With a subscription whose plan names this region."`
	Disabled       *bool      `json:"disabled,omitempty" doc:"Those who are, or are not."`
	ExpiredBefore  *time.Time `json:"expired_before,omitempty" doc:"Whose subscriptions had all ended by then, with one at least."`
	NoSessionSince *time.Time `json:"no_session_since,omitempty" doc:"Without a session, or an access token of a device, since then."`
	All            bool       `json:"all,omitempty" doc:"Every user. Without it something has to be selected by."`
}

// BulkRequest says what is to be done, and to whom.
type BulkRequest struct {
	Action     string       `json:"action" enum:"disable,enable,delete,invite,revoke,extend,move,limit" doc:"revoke: their devices in use. extend: of each the subscription that ends last. move: their subscriptions that have not ended. limit: what holds for them whatever their plans say."`
	Filter     BulkFilter   `json:"filter"`
	Days       int          `json:"days,omitempty" minimum:"0" maximum:"36500" doc:"With extend: from the end, or from now when that is past."`
	EndsAt     *time.Time   `json:"ends_at,omitempty" doc:"With extend, instead of days: to this time, where the end is before it."`
	PlanID     string       `json:"plan_id,omitempty" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"With move: to which plan."`
	Limits     LimitsChange `json:"limits,omitzero" doc:"With limit: what becomes of each user's."`
	TTLSeconds int          `json:"ttl_seconds,omitempty" minimum:"0" maximum:"2592000" doc:"With invite: 60 or more; what the settings say when absent."`
}

func (r BulkRequest) request() control.BulkRequest {
	return control.BulkRequest{
		Action: control.BulkAction(r.Action), Filter: control.BulkFilter(r.Filter), Days: r.Days, EndsAt: r.EndsAt, PlanID: r.PlanID, TTL: r.TTLSeconds,
		Limits: r.Limits.change(),
	}
}

func showBulkRequest(r control.BulkRequest) BulkRequest {
	return BulkRequest{
		Action: string(r.Action), Filter: BulkFilter(r.Filter), Days: r.Days, EndsAt: utc(r.EndsAt), PlanID: r.PlanID, TTLSeconds: r.TTL,
		Limits: showLimitsChange(r.Limits),
	}
}

// BulkStart is a request with the token of its preview.
type BulkStart struct {
	BulkRequest
	Token string `json:"token" minLength:"64" maxLength:"64" pattern:"^[0-9a-f]*$" doc:"Of the preview. When the request selects something else by now, or it is not as it was, the answer is changed."`
}

// BulkObject is what an action is done to.
type BulkObject struct {
	Position int    `json:"position"`
	UserID   string `json:"user_id"`
	UserName string `json:"user_name"`
	ObjectID string `json:"object_id" doc:"Of the user, the device or the subscription."`
	Error    string `json:"error,omitempty" doc:"What was in the way, for people."`
	Link     string `json:"link,omitempty" doc:"Of the invitation that was made just now; it is not shown again."`
}

func showBulkObjects(objects []control.BulkObject) []BulkObject {
	shown := make([]BulkObject, 0, len(objects))
	for _, o := range objects {
		shown = append(shown, BulkObject{Position: o.Position, UserID: o.UserID, UserName: o.UserName, ObjectID: o.ObjectID, Error: o.Error, Link: o.Link})
	}
	return shown
}

// BulkPreview is what an action would be done to.
type BulkPreview struct {
	Objects int          `json:"objects"`
	Users   int          `json:"users" doc:"Whose they are."`
	Sample  []BulkObject `json:"sample" doc:"The first 20."`
	Token   string       `json:"token" doc:"Of exactly these objects as they are, and what is to be done to them."`
}

// BulkJob is an action on many objects.
type BulkJob struct {
	ID         string      `json:"id"`
	OperatorID string      `json:"operator_id" doc:"Who has begun it."`
	Request    BulkRequest `json:"request"`
	Objects    int         `json:"objects"`
	Done       int         `json:"done"`
	Failed     int         `json:"failed"`
	Left       int         `json:"left"`
	CreatedAt  time.Time   `json:"created_at"`
}

func showBulkJob(j control.BulkJob) BulkJob {
	return BulkJob{
		ID: j.ID, OperatorID: j.OperatorID, Request: showBulkRequest(j.Request), Objects: j.Objects, Done: j.Done, Failed: j.Failed, Left: j.Left(),
		CreatedAt: j.CreatedAt,
	}
}

// BulkReport is a job with some of its objects.
type BulkReport struct {
	Job   BulkJob      `json:"job"`
	Items []BulkObject `json:"items" doc:"Of a piece: what was done to, and what failed. Of a job that is shown: the first 100 that failed."`
}

func (s *server) registerBulk(api huma.API) {
	preview := s.admin("preview-bulk", http.MethodPost, "/bulk/preview", "Show what an action on many objects would touch")
	preview.DefaultStatus = http.StatusOK
	register(s, api, preview, func(ctx context.Context, in *body[BulkRequest]) (*body[BulkPreview], error) {
		p, err := s.authority.PreviewBulk(ctx, in.Body.request())
		return &body[BulkPreview]{BulkPreview{Objects: p.Objects, Users: p.Users, Sample: showBulkObjects(p.Sample), Token: p.Token}}, err
	})
	begin := s.admin("create-bulk", http.MethodPost, "/bulk", "Begin an action on exactly the objects that a preview showed")
	begin.Description = "Nothing is done to them yet: call run until nothing is left."
	register(s, api, begin, func(ctx context.Context, in *Creation[BulkStart]) (*created[BulkJob], error) {
		job, replayed, err := s.authority.CreateBulk(ctx, in.Body.request(), in.Body.Token, in.once(ctx, "create-bulk"))
		if err == nil && !replayed {
			s.log.InfoContext(ctx, "bulk action begun", "job_id", job.ID, "action", string(job.Request.Action), "objects", job.Objects, "operator_id", job.OperatorID)
		}
		return createdAs(showBulkJob(job), replayed), err
	})
	register(s, api, s.admin("list-bulk", http.MethodGet, "/bulk", "List actions on many objects"),
		func(ctx context.Context, in *Paging) (*body[List[BulkJob]], error) {
			jobs, err := s.authority.BulkJobs(ctx, in.page())
			return listOf(*in, jobs, showBulkJob, func(j control.BulkJob) string { return j.ID }), err
		})
	register(s, api, s.admin("show-bulk", http.MethodGet, "/bulk/{id}", "Show how far an action on many objects is, and what failed"),
		func(ctx context.Context, in *ByID) (*body[BulkReport], error) {
			job, failed, err := s.authority.BulkJob(ctx, in.ID)
			return &body[BulkReport]{BulkReport{Job: showBulkJob(job), Items: showBulkObjects(failed)}}, err
		})
	run := s.admin("run-bulk", http.MethodPost, "/bulk/{id}/run", "Do the next piece of an action on many objects")
	run.DefaultStatus = http.StatusOK
	run.Description = "At most 500 objects, for some seconds. Each is done as if it were asked for alone, once, whoever calls how often, also after a crash and several at a time."
	register(s, api, run, func(ctx context.Context, in *ByID) (*body[BulkReport], error) {
		job, objects, err := s.authority.RunBulk(ctx, in.ID)
		return &body[BulkReport]{BulkReport{Job: showBulkJob(job), Items: showBulkObjects(objects)}}, err
	})
}
