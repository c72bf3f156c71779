package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Traffic is bytes of streams: up from devices, down to them.
type Traffic struct {
	Up   int64 `json:"up"`
	Down int64 `json:"down"`
}

// UsageDay is the traffic of a day in UTC.
type UsageDay struct {
	Day  string `json:"day"`
	Up   int64  `json:"up"`
	Down int64  `json:"down"`
}

// UsageDays is usage by day, newest first.
type UsageDays struct {
	Items []UsageDay `json:"items"`
	Total Traffic    `json:"total"`
}

// UsagePoint is the traffic of a part of a series.
type UsagePoint struct {
	BeginsAt time.Time `json:"begins_at"` // in the offset of the series' time zone
	EndsAt   time.Time `json:"ends_at"`
	Up       int64     `json:"up"`
	Down     int64     `json:"down"`
}

// UsageSeries is traffic over time, oldest first and without a gap.
type UsageSeries struct {
	By       string       `json:"by"`
	TimeZone string       `json:"time_zone"`
	Items    []UsagePoint `json:"items"`
	Total    Traffic      `json:"total"`
}

// UsageVerdict is what a recomputation of the account has found.
type UsageVerdict struct {
	OK           bool              `json:"ok"`
	Reports      int64             `json:"reports"`
	Sessions     int64             `json:"sessions"`
	Buckets      int64             `json:"buckets"`
	Total        Traffic           `json:"total"`
	Unattributed Traffic           `json:"unattributed"`
	Faults       int64             `json:"faults"`
	Differences  []UsageDifference `json:"differences"`
	More         bool              `json:"more"`
}

// UsageDifference is a total that the reports do not lead to.
type UsageDifference struct {
	Level          string     `json:"level"`
	GatewayID      string     `json:"gateway_id"`
	BootID         string     `json:"boot_id"`
	SessionID      string     `json:"session_id"`
	SubscriptionID string     `json:"subscription_id"`
	PlanID         string     `json:"plan_id"`
	Bucket         *time.Time `json:"bucket"` // when it begins, nil: not of a bucket
	Want           Traffic    `json:"want"`
	Have           Traffic    `json:"have"`
}

// VerifyUsage has the service recompute its account.
func (c *Client) VerifyUsage(ctx context.Context) (Object[UsageVerdict], error) {
	return one[UsageVerdict](ctx, c, call{method: http.MethodGet, path: "usage/verify", what: Thing{Kind: "usage"}})
}

// UsageSeries asks for traffic over time; the query says of what.
func (c *Client) UsageSeries(ctx context.Context, query url.Values) (Object[UsageSeries], error) {
	return one[UsageSeries](ctx, c, call{method: http.MethodGet, path: "usage/series", query: query, what: Thing{Kind: "usage"}})
}

// UsageOfUser is a user's usage from one day to another, which may be zero.
func (c *Client) UsageOfUser(ctx context.Context, id string, from, to time.Time) (Object[UsageDays], error) {
	return c.usage(ctx, "user", id, from, to)
}

// UsageOfDevice is UsageOfUser of one device.
func (c *Client) UsageOfDevice(ctx context.Context, id string, from, to time.Time) (Object[UsageDays], error) {
	return c.usage(ctx, "device", id, from, to)
}

func (c *Client) usage(ctx context.Context, kind, id string, from, to time.Time) (Object[UsageDays], error) {
	query := url.Values{kind + "_id": {id}}
	if !from.IsZero() {
		query.Set("from", from.Format(time.RFC3339))
	}
	if !to.IsZero() {
		query.Set("to", to.Format(time.RFC3339))
	}
	return one[UsageDays](ctx, c, call{method: http.MethodGet, path: "usage", query: query, what: Thing{kind, id}})
}

// Moving is a live session with what it has moved, in bytes, and moves, in bits per
// second on average over the last minute.
type Moving struct {
	ID          string    `json:"id"`
	UserID      string    `json:"user_id"`
	UserName    string    `json:"user_name"`
	DeviceID    string    `json:"device_id"`
	DeviceName  string    `json:"device_name"`
	GatewayID   string    `json:"gateway_id"`
	GatewayName string    `json:"gateway_name"`
	Region      string    `json:"region"`
	StartedAt   time.Time `json:"started_at"`
	Up          int64     `json:"up"`
	Down        int64     `json:"down"`
	UpBPS       int64     `json:"up_bps"`
	DownBPS     int64     `json:"down_bps"`
}

// Traffic is every live session with what it moves.
func (c *Client) Traffic() Collection[Moving] { return Collection[Moving]{c, "traffic", "traffic"} }
