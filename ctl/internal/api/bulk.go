package api

import (
	"context"
	"net/http"
	"time"
)

// BulkObject is what an action on many objects is done to.
type BulkObject struct {
	UserID   string `json:"user_id"`
	UserName string `json:"user_name"`
	ObjectID string `json:"object_id"`
	Error    string `json:"error"` // what was in the way, empty: nothing
	Link     string `json:"link"`  // of an invitation that was made just now
}

// BulkPreview is what an action would be done to.
type BulkPreview struct {
	Objects int          `json:"objects"`
	Users   int          `json:"users"`
	Sample  []BulkObject `json:"sample"`
	Token   string       `json:"token"`
}

// BulkJob is an action on many objects.
type BulkJob struct {
	ID         string `json:"id"`
	OperatorID string `json:"operator_id"`
	Request    struct {
		Action string `json:"action"`
	} `json:"request"`
	Objects   int       `json:"objects"`
	Done      int       `json:"done"`
	Failed    int       `json:"failed"`
	Left      int       `json:"left"`
	CreatedAt time.Time `json:"created_at"`
}

// BulkReport is a job with objects of it: those of a piece that was done, or those
// that failed.
type BulkReport struct {
	Job   BulkJob      `json:"job"`
	Items []BulkObject `json:"items"`
}

// BulkJobs is every action on many objects.
func (c *Client) BulkJobs() Collection[BulkJob] { return Collection[BulkJob]{c, "bulk action", "bulk"} }

// PreviewBulk asks what a request would be done to.
func (c *Client) PreviewBulk(ctx context.Context, request map[string]any) (Object[BulkPreview], error) {
	return one[BulkPreview](ctx, c, call{method: http.MethodPost, path: "bulk/preview", body: request, what: Thing{Kind: "bulk action"}})
}

// BulkReport shows a job and what failed.
func (c *Client) BulkReport(ctx context.Context, id string) (Object[BulkReport], error) {
	return one[BulkReport](ctx, c, call{method: http.MethodGet, path: c.BulkJobs().pathOf(id), what: Thing{"bulk action", id}})
}

// RunBulk does the next piece of a job.
func (c *Client) RunBulk(ctx context.Context, id string) (Object[BulkReport], error) {
	return one[BulkReport](ctx, c, call{
		method: http.MethodPost, path: c.BulkJobs().pathOf(id) + "/run", body: struct{}{}, what: Thing{"bulk action", id},
	})
}
