package control

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized says that a credential proves nothing: unknown, forged,
	// expired or for something else. It never says which.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrInvalidProof says that a proof of possession does not hold: a stale
	// nonce or a wrong signature. Nothing else has been looked at by then.
	ErrInvalidProof = errors.New("invalid proof of possession")
	// ErrInvalidInvitation says that a code is unknown, used or expired.
	ErrInvalidInvitation = errors.New("invalid invitation")
	// ErrNoOperator says that nobody owns the service yet.
	ErrNoOperator = errors.New("there is no operator yet")
	// ErrUnavailable says that the records are out of reach at the moment. What was
	// asked for may have happened all the same when the answer got lost.
	ErrUnavailable = errors.New("the records are out of reach")
	// ErrStorageFull is the ErrUnavailable of writers for whom there is no room.
	ErrStorageFull = fmt.Errorf("%w: there is no room to write", ErrUnavailable)
	// ErrIdempotencyKeyReused says that an Idempotency-Key came with another
	// request before.
	ErrIdempotencyKeyReused = errors.New("idempotency key was used for another request")
)

// ConflictError says that a change does not fit what exists.
type ConflictError struct {
	Detail string // for people
}

func (e *ConflictError) Error() string { return e.Detail }

// RefusedError says why a device, having proved its key, may not have what it
// asks for.
type RefusedError struct {
	Reason reason.Code
	// Devices are those of which one can be replaced, with reason.DeviceLimit.
	Devices []Device
	// Support is whom the person can turn to, from Authority.WithSupport; else empty.
	Support string
}

func (e *RefusedError) Error() string { return "refused: " + string(e.Reason) }

// FieldError is what is wrong with one field. It never holds the field's value.
type FieldError struct {
	Field  string
	Detail string
}

// InvalidError lists everything that is wrong with a request.
type InvalidError struct {
	Fields []FieldError
}

func (e *InvalidError) Error() string {
	parts := make([]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		parts = append(parts, f.Field+": "+f.Detail)
	}
	return strings.Join(parts, "; ")
}

// RateLimitedError says that a caller asks too often.
type RateLimitedError struct {
	RetryAfter time.Duration
}

func (e *RateLimitedError) Error() string { return "too many attempts" }

// checks collects the problems of a request.
type checks struct {
	fields []FieldError
}

func (c *checks) that(ok bool, field, detail string) {
	if !ok {
		c.fields = append(c.fields, FieldError{Field: field, Detail: detail})
	}
}

func (c *checks) between(n, lowest, highest int, field, detail string) {
	c.that(n >= lowest && n <= highest, field, detail)
}

func (c *checks) err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &InvalidError{Fields: c.fields}
}
