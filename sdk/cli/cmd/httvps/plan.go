package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// plan is what the service says of the plan, in status -o json.
type plan struct {
	Name     string     `json:"name"`
	Status   string     `json:"status"` // active, scheduled, expired, or none
	Allowed  bool       `json:"allowed"`
	Reason   string     `json:"reason"`    // why it lets the device have no session: a code
	EndsAt   *time.Time `json:"ends_at"`   // null: without an end, or from the first session on
	DaysLeft *int       `json:"days_left"` // likewise; a day that has begun counts whole

	// The traffic of the present period; null where it is not limited.
	Quota     *int64     `json:"quota_bytes"`
	Used      *int64     `json:"quota_used"`
	Left      *int64     `json:"quota_left"`
	ResetsAt  *time.Time `json:"quota_resets_at"` // null: never
	Throttled bool       `json:"throttled"`

	Support string `json:"support"` // whom the user can turn to; empty: the service does not say

	AskedAt time.Time `json:"asked_at"`
}

func newPlan(a httvps.Account, now time.Time) *plan {
	p := &plan{Status: "none", Allowed: a.Allowed, Reason: a.Reason, Support: a.Support, AskedAt: now.UTC()}
	if a.Plan == nil {
		return p
	}
	p.Name, p.Status = a.Plan.Name, a.Plan.Status
	if days, ok := a.Plan.DaysLeft(now); ok {
		p.EndsAt, p.DaysLeft = &a.Plan.EndsAt, &days
	}
	if q := a.Plan.Quota; q != nil {
		p.Quota, p.Used, p.Left, p.Throttled = &q.Bytes, &q.Used, &q.Left, q.Throttled
		if !q.ResetsAt.IsZero() {
			p.ResetsAt = &q.ResetsAt
		}
	}
	return p
}

// write says it to a person; a plan that is not known says nothing.
func (p *plan) write(line func(name, value string), speak words.Language) {
	if p == nil {
		return
	}
	name := plainText(p.Name)
	switch {
	case p.Status == "none":
		name = speak.Say("none")
	case p.EndsAt == nil:
		name = speak.Say("%s, without an end", name)
	case *p.DaysLeft > 0:
		name = speak.Say("%s, %s left (until %s)", name, speak.Days(*p.DaysLeft), p.EndsAt.Local().Format(time.DateTime))
	default:
		name = speak.Say("%s, ended on %s", name, p.EndsAt.Local().Format(time.DateTime))
	}
	line("plan", name)
	if p.Quota != nil {
		text := speak.Say("%s of %s left", size(float64(*p.Left)), size(float64(*p.Quota)))
		if p.ResetsAt != nil {
			text += ", " + speak.Say("anew on %s", p.ResetsAt.Local().Format(time.DateTime))
		}
		if p.Throttled {
			text += ", " + speak.Say("slowed down")
		}
		line("traffic", text)
	}
	if !p.Allowed && p.Reason != "" {
		line("refused", p.Reason+". "+speak.Explain(p.Reason))
	}
	if p.Support != "" {
		line("support", plainText(p.Support))
	}
}

const (
	// planAge is how old what is known of the plan may be before the service is asked
	// again: usage is known some seconds late anyway.
	planAge = 15 * time.Second

	// planTimeout bounds the question; on a way around a blocked address it takes
	// longer than on the straight one.
	planTimeout = 8 * time.Second
)

// planOf asks the service for the plan.
func planOf(ctx context.Context, store httvps.Store) (known *plan, problem string) {
	client, err := httvps.NewClient(httvps.Config{Store: store, Agent: agent()})
	if err != nil {
		return nil, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	account, err := client.Account(ctx)
	if err != nil {
		return nil, planError(err)
	}
	return newPlan(account, time.Now()), ""
}

// planError says why the plan is not known.
func planError(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return strings.TrimPrefix(err.Error(), "account: ")
}

// planWait is how long a status waits for the first answer about the plan.
const planWait = 3 * time.Second

// plans keeps what is known of the plan while httvps connect runs.
type plans struct {
	wanted chan struct{} // holds one when somebody wants to know

	mu      sync.Mutex // guards the following fields
	known   *plan
	problem string
	asked   time.Time     // when the service last answered, or did not; zero: never
	told    chan struct{} // closed at the first answer
}

func newPlans() *plans { return &plans{wanted: make(chan struct{}, 1), told: make(chan struct{})} }

// run asks the service, when somebody wants to know, until ctx ends.
func (p *plans) run(ctx context.Context, ask func(ctx context.Context) (httvps.Account, error)) error {
	for {
		select {
		case <-p.wanted:
		case <-ctx.Done():
			return nil
		}
		p.mu.Lock()
		fresh := !p.asked.IsZero() && time.Since(p.asked) < planAge
		p.mu.Unlock()
		if fresh {
			continue
		}
		askCtx, cancel := context.WithTimeout(ctx, planTimeout)
		account, err := ask(askCtx)
		cancel()
		p.learn(account, err)
	}
}

func (p *plans) learn(account httvps.Account, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked.IsZero() {
		close(p.told)
	}
	p.asked = time.Now()
	if err != nil {
		p.problem = planError(err) // what was known stays so
		return
	}
	p.known, p.problem = newPlan(account, p.asked), ""
}

// get returns what is known of the plan, and why nothing newer is.
func (p *plans) get(ctx context.Context) (known *plan, problem string) {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, planWait)
	defer cancel()
	select {
	case <-p.told:
	case <-ctx.Done():
		return nil, "no answer yet"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known, p.problem
}
