// Package webhooks sends what the control plane has to tell to the webhooks of its
// operators. Which messages there are, in which order they go and how often they are
// tried is for the domain; this is how they are sent, and where to.
package webhooks

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const (
	// lookEvery is how often somebody looks for what is to be sent. What this process
	// itself writes is sent at once.
	lookEvery = 5 * time.Second
	// perWebhook is how many messages are on their way to a webhook at once, so that one
	// that is slow keeps no other waiting.
	perWebhook = 4
	// finishTimeout is how long what became of an attempt may take to be written down,
	// when the service stops, too.
	finishTimeout = 5 * time.Second
)

// Queue has the messages: *control.Authority.
type Queue interface {
	Now() time.Time
	DueWebhooks(ctx context.Context) ([]string, error)
	ClaimDeliveries(ctx context.Context, webhookID string, limit int) ([]control.Outgoing, error)
	FinishDelivery(ctx context.Context, out control.Outgoing, sent control.Sent) (control.Delivery, error)
}

// Observer is told what happens, for metrics. Labels come from fixed sets.
type Observer interface {
	// WebhookAttempt counts an attempt: "delivered", "failed" or "dead".
	WebhookAttempt(result string)
}

// Sender sends messages. Several processes may do so.
type Sender struct {
	queue    Queue
	client   *Client
	observer Observer
	log      *slog.Logger
	wake     chan struct{}

	attempts sync.WaitGroup
	mu       sync.Mutex     // guards what follows
	running  map[string]int // attempts, by webhook
}

// New returns a sender. Run sends.
func New(queue Queue, client *Client, observer Observer, log *slog.Logger) *Sender {
	return &Sender{queue: queue, client: client, observer: observer, log: log, wake: make(chan struct{}, 1), running: make(map[string]int)}
}

// Wake says that there may be something to send. It never waits.
func (s *Sender) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends. Attempts that are under way then are broken off, and made
// again by whoever finds them when their lease has ended.
func (s *Sender) Run(ctx context.Context) error {
	defer s.client.Close()
	defer s.attempts.Wait()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for failed := false; ; {
		err := s.begin(ctx)
		if err != nil && ctx.Err() == nil && !failed { // once: readiness says the rest
			s.log.WarnContext(ctx, "webhooks not looked after", "error", err.Error())
		}
		failed = err != nil
		if failed { // not before it may have changed
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-ticker.C:
		}
	}
}

// begin begins attempts with what is to be sent, as far as there is room.
func (s *Sender) begin(ctx context.Context) error {
	due, err := s.queue.DueWebhooks(ctx)
	if err != nil {
		return err
	}
	for _, id := range due {
		room := s.room(id)
		if room == 0 {
			continue
		}
		claimed, claimErr := s.queue.ClaimDeliveries(ctx, id, room)
		if claimErr != nil { // the others may be well
			err = claimErr
			continue
		}
		for _, out := range claimed {
			s.count(id, 1)
			s.attempts.Go(func() {
				defer s.Wake()
				defer s.count(id, -1)
				s.attempt(ctx, out)
			})
		}
	}
	return err
}

func (s *Sender) room(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return perWebhook - s.running[id]
}

func (s *Sender) count(id string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] += by; s.running[id] == 0 {
		delete(s.running, id)
	}
}

func (s *Sender) attempt(ctx context.Context, out control.Outgoing) {
	sent := s.client.Send(ctx, out, s.queue.Now())
	if sent.Failure != "" && ctx.Err() != nil {
		return // it was broken off
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	after, err := s.queue.FinishDelivery(bound, out, sent)
	if err != nil {
		s.log.WarnContext(ctx, "attempt to send to a webhook not written down", "webhook_id", out.WebhookID, "delivery_id", out.ID, "error", err.Error())
		return
	}
	result := "delivered"
	switch after.State {
	case control.DeliveryPending:
		result = "failed"
	case control.DeliveryDead:
		result = "dead"
		s.log.WarnContext(ctx, "message to a webhook given up", "webhook_id", out.WebhookID, "delivery_id", out.ID, "type", string(out.Type),
			"attempts", out.Attempts, "failure", string(sent.Failure), "status", sent.Status)
	case control.DeliveryDelivered:
	}
	s.observer.WebhookAttempt(result)
}
