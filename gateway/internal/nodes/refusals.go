package nodes

import (
	"sync"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

const (
	// refusalLasts is how long a refusal is answered from memory: a device that
	// knocks on does not reach the control plane each time, and one that may
	// connect again does not wait long.
	refusalLasts = 5 * time.Second
	maxRefusals  = 4096
)

// subject is whom a refusal is about. A device's next key is another subject.
type subject struct {
	device     [16]byte
	thumbprint string
	generation int64
}

type refusal struct {
	about subject
	until time.Time
}

// refusals remembers the latest refusals of devices. When there are too many it
// forgets the oldest.
type refusals struct {
	now func() time.Time

	mu    sync.Mutex // guards the following fields
	known map[subject]reason.Code
	order []refusal // of known, oldest first
}

func (r *refusals) find(about subject) (reason.Code, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(maxRefusals)
	code, refused := r.known[about]
	return code, refused
}

func (r *refusals) remember(about subject, code reason.Code) {
	if !lasting(code) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.known[about]; known {
		return // of another request at the same time
	}
	r.forget(maxRefusals - 1)
	r.known[about] = code
	r.order = append(r.order, refusal{about, r.now().Add(refusalLasts)})
}

// forget drops what is over, and the oldest beyond limit. Called with mu held.
func (r *refusals) forget(limit int) {
	now := r.now()
	for len(r.order) > limit || len(r.order) > 0 && !now.Before(r.order[0].until) {
		delete(r.known, r.order[0].about)
		r.order = r.order[1:]
	}
}

// clear forgets all of them: somebody may be welcome again.
func (r *refusals) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.known)
	r.order = nil
}

// lasting reports whether a refusal is about the device, whatever session it
// asks for. The others pass by themselves: a session that ends makes room for
// the next.
func lasting(code reason.Code) bool {
	switch code {
	case reason.DeviceRevoked, reason.DeviceMismatch, reason.DeviceNotFound, reason.UserDisabled,
		reason.NoActiveSubscription, reason.SubscriptionExpired, reason.QuotaExceeded:
		return true
	default:
		return false
	}
}
