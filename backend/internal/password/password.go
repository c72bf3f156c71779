// Package password makes hashes of passwords and checks passwords against them:
// argon2id, a few at a time. Each takes memory that is meant to hurt who tries many,
// so how many run at once is what keeps them from hurting the service.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Cost is what a hash takes: Passes over Memory KiB, on one processor.
type Cost struct {
	Passes uint32
	Memory uint32 // KiB
}

// Recommended is what OWASP recommends for argon2id: 19 MiB and some 50 ms.
func Recommended() Cost { return Cost{Passes: 2, Memory: 19 << 10} }

const (
	// atOnce is how many hashes are computed at the same time: 38 MiB of memory.
	atOnce = 2
	// maxWaiting is how many may wait for that: some seconds' worth.
	maxWaiting = 64

	saltBytes = 16
	hashBytes = 32

	// What a stored hash may ask for: it comes from the database, whose writer is not
	// to decide how much memory the service takes.
	maxPasses = 16
	maxMemory = 256 << 10 // KiB
)

// errHash says that a text is not a hash of this package.
var errHash = errors.New("the hash of a password is damaged")

// Hasher makes and checks hashes. It is safe for concurrent use.
type Hasher struct {
	cost    Cost
	places  chan struct{}
	waiting atomic.Int64 // and running
	checked atomic.Int64
}

// New returns a Hasher whose new hashes take this cost.
func New(cost Cost) *Hasher { return &Hasher{cost: cost, places: make(chan struct{}, atOnce)} }

// Checked is how many passwords were checked so far.
func (h *Hasher) Checked() int64 { return h.checked.Load() }

// Hash returns the hash of a password, in PHC form. It waits for its turn until ctx
// ends, and returns a *control.RateLimitedError when too many wait.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	made := hash{cost: h.cost, salt: salt}
	err := h.inTurn(ctx, func() { made.sum = h.cost.sum(password, salt) })
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// Check reports whether a hash is of this password. It waits as Hash does.
func (h *Hasher) Check(ctx context.Context, encoded, password string) (bool, error) {
	stored, err := parse(encoded)
	if err != nil {
		return false, err
	}
	var same bool
	err = h.inTurn(ctx, func() {
		h.checked.Add(1)
		same = subtle.ConstantTimeCompare(stored.cost.sum(password, stored.salt), stored.sum) == 1
	})
	return same, err
}

func (h *Hasher) inTurn(ctx context.Context, compute func()) error {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > atOnce+maxWaiting {
		return &control.RateLimitedError{RetryAfter: time.Second}
	}
	select {
	case h.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.places }()
	compute()
	return nil
}

func (c Cost) sum(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, 1, hashBytes)
}

// hash is a stored one.
type hash struct {
	cost      Cost
	salt, sum []byte
}

var raw = base64.RawStdEncoding.Strict()

func (h hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, h.cost.Memory, h.cost.Passes, raw.EncodeToString(h.salt), raw.EncodeToString(h.sum))
}

// parse reads what String writes.
func parse(encoded string) (hash, error) {
	var h hash
	head, rest, _ := strings.Cut(strings.TrimPrefix(encoded, fmt.Sprintf("$argon2id$v=%d$", argon2.Version)), "$")
	if _, err := fmt.Sscanf(head, "m=%d,t=%d,p=1", &h.cost.Memory, &h.cost.Passes); err != nil {
		return hash{}, errHash
	}
	salt, sum, _ := strings.Cut(rest, "$")
	var err1, err2 error
	h.salt, err1 = raw.DecodeString(salt)
	h.sum, err2 = raw.DecodeString(sum)
	if errors.Join(err1, err2) != nil || len(h.salt) != saltBytes || len(h.sum) != hashBytes || h.String() != encoded ||
		h.cost.Passes < 1 || h.cost.Passes > maxPasses || h.cost.Memory < 8 || h.cost.Memory > maxMemory {
		return hash{}, errHash
	}
	return h, nil
}
