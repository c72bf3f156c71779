package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// maxUsageBody has room for control.MaxUsageReports reports. verifyTimeout bounds
// a recomputation of the whole account.
const (
	maxUsageBody  = 512 << 10
	verifyTimeout = 15 * time.Minute
)

// UsageReports is a batch of what a gateway has counted.
type UsageReports struct {
	Reports []UsageEntry `json:"reports" minItems:"1" maxItems:"1000"`
}

// UsageEntry is a session's counters at a moment.
type UsageEntry struct {
	BootID    string    `json:"boot_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"Of the gateway's process that counted."`
	SessionID string    `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
	Sequence  uint64    `json:"sequence" doc:"From 1 to 2^62, and grows with each report of the session in this process."`
	Up        uint64    `json:"up" doc:"Bytes from the device since the session began in this process, at most 2^52. Never goes down."`
	Down      uint64    `json:"down" doc:"Bytes to the device, in the same way."`
	At        time.Time `json:"at" doc:"When it was counted. A time to come, or more than 400 days ago, is taken for now."`
}

// UsageAnswer says what need not be reported again.
type UsageAnswer struct {
	Acknowledged []UsageAck     `json:"acknowledged" doc:"Per session: up to which sequence all is durable."`
	Problems     []UsageProblem `json:"problems" doc:"Entries that were refused, or show a fault of the gateway."`
}

// UsageAck covers all reports of a session with sequences up to this one, also
// those that never arrived: the counters include them.
type UsageAck struct {
	BootID    string `json:"boot_id"`
	SessionID string `json:"session_id"`
	Sequence  int64  `json:"sequence"`
}

// UsageProblem is what is wrong with an entry.
type UsageProblem struct {
	Index  int    `json:"index" doc:"Of the entry in the request, from 0."`
	Code   string `json:"code" enum:"too_large,invalid_sequence,foreign_session,decreased,rewritten"`
	Taken  bool   `json:"taken" doc:"Kept all the same. What is not would be refused again: do not repeat it."`
	Detail string `json:"detail" doc:"For people."`
}

// usageProblems says each problem of an entry in a sentence.
var usageProblems = map[control.UsageResult]string{
	control.UsageTooLarge:        "up and down must not exceed 4503599627370496 (2^52)",
	control.UsageInvalidSequence: "sequence must be from 1 to 4611686018427387904 (2^62)",
	control.UsageForeign:         "the session is on another gateway",
	control.UsageDecreased:       "a counter is lower than with a lower sequence: the largest value counts",
	control.UsageRewritten:       "this sequence came with other values before: the largest of each count",
}

func (s *server) registerUsage(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "report-usage", Method: http.MethodPost, Path: "/api/v1/usage/report", Tags: []string{"gateway"},
		Summary: "Report what sessions have moved", Security: []map[string][]string{{secureGateway: {}}}, Middlewares: s.asGateway(),
		DefaultStatus: http.StatusOK, MaxBodyBytes: maxUsageBody,
		Description: "Counters are cumulative, so reports may be repeated, lost, late and in any order. What the answer acknowledges is durable.",
	}, s.reportUsage)
}

func (s *server) reportUsage(ctx context.Context, in *body[UsageReports]) (*body[UsageAnswer], error) {
	entries := make([]control.UsageEntry, 0, len(in.Body.Reports))
	for _, r := range in.Body.Reports {
		entries = append(entries, control.UsageEntry(r))
	}
	gateway := gatewayOf(ctx)
	answer, err := s.authority.ReportUsage(ctx, gateway, entries)
	if err != nil {
		return nil, err
	}
	out := UsageAnswer{Acknowledged: make([]UsageAck, 0, len(answer.Acks)), Problems: []UsageProblem{}}
	for _, ack := range answer.Acks {
		out.Acknowledged = append(out.Acknowledged, UsageAck(ack))
	}
	for i, result := range answer.Results {
		s.observer.Usage(string(result))
		if detail, wrong := usageProblems[result]; wrong {
			out.Problems = append(out.Problems, UsageProblem{Index: i, Code: string(result), Taken: !result.Refused(), Detail: detail})
		}
	}
	for _, reached := range answer.Warnings {
		s.quotaReached(ctx, reached)
	}
	if !answer.Oldest.IsZero() {
		s.observer.UsageLag(s.authority.Now().Sub(answer.Oldest))
	}
	if len(out.Problems) > 0 {
		first := out.Problems[0]
		s.log.WarnContext(ctx, "gateway's usage reports are wrong", "gateway_id", gateway.ID, "entries", len(out.Problems),
			"first", first.Code, "session_id", entries[first.Index].SessionID, "request_id", requestID(ctx))
	}
	return &body[UsageAnswer]{out}, nil
}

// Traffic is bytes of streams.
type Traffic struct {
	Up   int64 `json:"up" doc:"Bytes from devices."`
	Down int64 `json:"down" doc:"Bytes to devices."`
}

// UsageVerdict is what a recomputation of the account from the raw reports found.
type UsageVerdict struct {
	OK           bool              `json:"ok" doc:"Every total is what the reports lead to."`
	Reports      int64             `json:"reports"`
	Sessions     int64             `json:"sessions"`
	Buckets      int64             `json:"buckets" doc:"Sums per subscription, gateway and quarter of an hour."`
	Total        Traffic           `json:"total"`
	Unattributed Traffic           `json:"unattributed" doc:"Of sessions that the service does not know; part of total."`
	Faults       int64             `json:"faults" doc:"Reports that contradict each other. The largest value counted."`
	Differences  []UsageDifference `json:"differences" doc:"At most 100."`
	More         bool              `json:"more" doc:"There are more differences."`
}

// UsageDifference is a total that the reports do not lead to.
type UsageDifference struct {
	Level          string     `json:"level" enum:"session,bucket,attribution,reports,total" doc:"attribution: the session's row names others than the account. reports: there is no total at all. total: the sum of the buckets of a plan and a gateway."`
	GatewayID      string     `json:"gateway_id"`
	BootID         string     `json:"boot_id,omitempty"`
	SessionID      string     `json:"session_id,omitempty"`
	SubscriptionID string     `json:"subscription_id,omitempty"`
	PlanID         string     `json:"plan_id,omitempty" doc:"Of a total; absent there: unknown."`
	Bucket         *time.Time `json:"bucket,omitempty" doc:"When the quarter of an hour begins."`
	Want           Traffic    `json:"want" doc:"As the reports say."`
	Have           Traffic    `json:"have" doc:"As the total says."`
}

// UsageDay is the traffic of a day in UTC.
type UsageDay struct {
	Day  string `json:"day" format:"date"`
	Up   int64  `json:"up"`
	Down int64  `json:"down"`
}

// UsageDays is usage by day.
type UsageDays struct {
	Items []UsageDay `json:"items" doc:"Newest first, without days that have none."`
	Total Traffic    `json:"total"`
}

type usageInput struct {
	UserID   string    `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Whose. Either this or device_id."`
	DeviceID string    `query:"device_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Which device's."`
	From     time.Time `query:"from" doc:"A moment of the first day; 30 days before to unless given."`
	To       time.Time `query:"to" doc:"A moment of the last day, at most 400 days after from; now unless given."`
}

// UsagePoint is the traffic of a part of a series.
type UsagePoint struct {
	BeginsAt time.Time `json:"begins_at" doc:"In the offset of the time zone."`
	EndsAt   time.Time `json:"ends_at" doc:"When the next one begins."`
	Up       int64     `json:"up"`
	Down     int64     `json:"down"`
}

// UsageSeries is traffic over time.
type UsageSeries struct {
	By       string       `json:"by"`
	TimeZone string       `json:"time_zone"`
	Items    []UsagePoint `json:"items" doc:"Oldest first and without a gap: those without traffic too."`
	Total    Traffic      `json:"total"`
}

type usageSeriesInput struct {
	By        string    `query:"by" enum:"hour,day,week,month" default:"day" doc:"How long a point is. Weeks begin on Monday."`
	TimeZone  string    `query:"time_zone" maxLength:"100" default:"UTC" doc:"IANA name of the zone in whose calendar points are."`
	From      time.Time `query:"from" doc:"A moment of the first point; 30 points in all unless given."`
	To        time.Time `query:"to" doc:"When the span ends, which is in the last point or at its end; now unless given. At most 400 points."`
	UserID    string    `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Whose. At most one of the five; none: everything."`
	DeviceID  string    `query:"device_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Which device's."`
	GatewayID string    `query:"gateway_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Through which gateway."`
	RegionID  string    `query:"region_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Through the gateways of which region."`
	PlanID    string    `query:"plan_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Of the subscriptions that had which plan."`
}

// Resolve implements huma.Resolver.
func (in *usageSeriesInput) Resolve(huma.Context) []error {
	given := ""
	for _, one := range []struct{ name, id string }{
		{"user_id", in.UserID}, {"device_id", in.DeviceID}, {"gateway_id", in.GatewayID}, {"region_id", in.RegionID}, {"plan_id", in.PlanID},
	} {
		if one.id != "" && given != "" {
			return []error{&huma.ErrorDetail{Location: "query." + one.name, Message: notTogether}}
		}
		given += one.id
	}
	return nil
}

// usageDays is how many days are shown unless said otherwise.
const usageDays = 30

func (s *server) registerAccount(api huma.API) {
	verify := s.admin("verify-usage", http.MethodGet, "/usage/verify", "Recompute all usage from the raw reports and name each total that differs")
	verify.Description = "As of one moment. Takes time with the number of reports, at most 15 minutes."
	register(s, api, verify, func(ctx context.Context, _ *struct{}) (*body[UsageVerdict], error) {
		ctx, cancel := patient(ctx, verifyTimeout)
		defer cancel()
		v, err := s.authority.VerifyUsage(ctx)
		return &body[UsageVerdict]{showVerdict(v)}, err
	})
	register(s, api, s.admin("show-usage-series", http.MethodGet, "/usage/series", "Show the traffic of everything, or of one thing, over time"), s.usageSeries)
	register(s, api, s.admin("show-usage", http.MethodGet, "/usage", "Show a user's or a device's usage by day"),
		func(ctx context.Context, in *usageInput) (*body[UsageDays], error) {
			if (in.UserID == "") == (in.DeviceID == "") {
				return nil, newProblem(http.StatusUnprocessableEntity, codeInvalidRequest, "want either user_id or device_id")
			}
			if in.To.IsZero() {
				in.To = s.authority.Now()
			}
			if in.From.IsZero() {
				in.From = in.To.AddDate(0, 0, 1-usageDays)
			}
			days, err := s.authority.UsageDays(ctx, control.UsageFilter{UserID: in.UserID, DeviceID: in.DeviceID}, in.From, in.To)
			if err != nil {
				return nil, err
			}
			out := UsageDays{Items: make([]UsageDay, 0, len(days))}
			var total control.Traffic
			for _, d := range days {
				out.Items = append(out.Items, UsageDay{Day: d.Day.Format(time.DateOnly), Up: d.Up, Down: d.Down})
				total = total.Plus(d.Traffic)
			}
			out.Total = Traffic(total)
			return &body[UsageDays]{out}, nil
		})
}

func (s *server) usageSeries(ctx context.Context, in *usageSeriesInput) (*body[UsageSeries], error) {
	series, err := s.authority.UsageSeries(ctx, control.SeriesRequest{
		Step: control.SeriesStep(in.By), TimeZone: in.TimeZone, From: in.From, To: in.To,
		UsageFilter: control.UsageFilter{UserID: in.UserID, DeviceID: in.DeviceID, GatewayID: in.GatewayID, RegionID: in.RegionID, PlanID: in.PlanID},
	})
	if err != nil {
		return nil, err
	}
	out := UsageSeries{By: in.By, TimeZone: in.TimeZone, Items: make([]UsagePoint, 0, len(series.Points))}
	var total control.Traffic
	for _, p := range series.Points {
		out.Items = append(out.Items, UsagePoint{BeginsAt: p.From.In(series.Zone), EndsAt: p.To.In(series.Zone), Up: p.Up, Down: p.Down})
		total = total.Plus(p.Traffic)
	}
	out.Total = Traffic(total)
	return &body[UsageSeries]{out}, nil
}

func showVerdict(v control.UsageVerdict) UsageVerdict {
	out := UsageVerdict{
		OK: len(v.Differences) == 0, Reports: v.Reports, Sessions: v.Sessions, Buckets: v.Buckets, Total: Traffic(v.Total),
		Unattributed: Traffic(v.Unattributed), Faults: v.Faults, More: v.More, Differences: make([]UsageDifference, 0, len(v.Differences)),
	}
	for _, d := range v.Differences {
		shown := UsageDifference{
			Level: string(d.Level), GatewayID: d.GatewayID, BootID: d.BootID, SessionID: d.SessionID, SubscriptionID: d.SubscriptionID, PlanID: d.PlanID,
			Want: Traffic(d.Want), Have: Traffic(d.Have),
		}
		if !d.Bucket.IsZero() {
			shown.Bucket = &d.Bucket
		}
		out.Differences = append(out.Differences, shown)
	}
	return out
}
