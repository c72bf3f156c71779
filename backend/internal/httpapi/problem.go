package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/reason"
)

// Codes of problems beside the reasons of package reason. They are part of the API.
const (
	codeInvalidRequest       = "invalid_request"
	codeInvalidProof         = "invalid_proof"
	codeInvalidInvitation    = "invalid_invitation"
	codeInvalidLogin         = "invalid_login"
	codeCrossOrigin          = "cross_origin"
	codeUnauthorized         = "unauthorized"
	codeForbidden            = "forbidden"
	codeNotFound             = "not_found"
	codeConflict             = "conflict"
	codeIdempotencyKeyReused = "idempotency_key_reused"
	codeChanged              = "changed"
	codeRateLimited          = "rate_limited"
	codeMethodNotAllowed     = "method_not_allowed"
	codeTooLarge             = "request_too_large"
	codeUnsupportedMedia     = "unsupported_media_type"
	codeTimeout              = "timeout"
	codeUnavailable          = "unavailable"
	codeStorageFull          = "storage_full"
	codeInternal             = "internal"
)

// Problem is the body of every error, RFC 9457's members and a stable code.
type Problem struct { //nolint:errname // the name of its schema in the API
	Title  string         `json:"title" doc:"The status in words."`
	Status int            `json:"status" doc:"The HTTP status."`
	Code   string         `json:"code" doc:"Which problem it is, for programs. Stable."`
	Detail string         `json:"detail,omitempty" doc:"What went wrong, for people."`
	Errors []ProblemField `json:"errors,omitempty" doc:"Everything that is wrong with the request. Never holds the rejected values."`

	Devices []MyDevice `json:"devices,omitempty" doc:"With device_limit: the user's devices, of which one can be replaced, the ones that were not seen for longest first; at most 100."`

	Support string `json:"support,omitempty" doc:"Of the device API, where only somebody of the service helps, such as with subscription_expired: whom the person can turn to, a text or a URL of the operator's, to be shown."`
}

// ProblemField is what is wrong with one part of a request.
type ProblemField struct {
	Location string `json:"location" doc:"Which part, such as body.name."`
	Message  string `json:"message" doc:"What is wrong with it."`
}

func newProblem(status int, code, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have gone
}

// problemOf is the one table from the domain's errors to answers. What is not
// in it is an internal error outside and complete in the log.
func problemOf(err error) *Problem {
	var (
		own      *Problem
		refused  *control.RefusedError
		invalid  *control.InvalidError
		conflict *control.ConflictError
		limited  *control.RateLimitedError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &refused):
		p := newProblem(http.StatusForbidden, string(refused.Reason), refusals[refused.Reason])
		p.Support = refused.Support
		for _, device := range refused.Devices {
			p.Devices = append(p.Devices, showMyDevice(device))
		}
		return p
	case errors.As(err, &invalid):
		p := newProblem(http.StatusUnprocessableEntity, codeInvalidRequest, "the request is not valid")
		for _, f := range invalid.Fields {
			p.Errors = append(p.Errors, ProblemField{Location: "body." + f.Field, Message: f.Detail})
		}
		return p
	case errors.As(err, &conflict):
		return newProblem(http.StatusConflict, codeConflict, conflict.Detail)
	case errors.As(err, &limited):
		return newProblem(http.StatusTooManyRequests, codeRateLimited, "too many attempts: try again later")
	case errors.Is(err, control.ErrInvalidInvitation):
		return newProblem(http.StatusForbidden, codeInvalidInvitation, "the code is not valid, or has been used or expired")
	case errors.Is(err, control.ErrBadLogin):
		return newProblem(http.StatusForbidden, codeInvalidLogin, "the name, the password or the code is not right, or the code has been used")
	case errors.Is(err, control.ErrLimitedToken):
		return newProblem(http.StatusForbidden, codeForbidden, "this token may less than its operator: for this it needs a login, or a token that may as much")
	case errors.Is(err, control.ErrInvalidProof):
		return newProblem(http.StatusUnauthorized, codeInvalidProof, "the signature or the challenge is not valid: ask for a new challenge")
	case errors.Is(err, control.ErrIdempotencyKeyReused):
		return newProblem(http.StatusConflict, codeIdempotencyKeyReused, "this Idempotency-Key came with another request before")
	case errors.Is(err, control.ErrBulkChanged):
		return newProblem(http.StatusConflict, codeChanged, "what was previewed has changed: look at another preview")
	case control.IsTokenExpired(err):
		return newProblem(http.StatusUnauthorized, string(reason.TokenExpired), refusals[reason.TokenExpired])
	case errors.Is(err, control.ErrUnauthorized):
		return newProblem(http.StatusUnauthorized, string(reason.InvalidToken), refusals[reason.InvalidToken])
	case errors.Is(err, control.ErrStorageFull):
		return newProblem(http.StatusServiceUnavailable, codeStorageFull,
			"the service has no room to write: until its operator makes some, it answers only what needs no writing")
	case errors.Is(err, control.ErrUnavailable):
		return newProblem(http.StatusServiceUnavailable, codeUnavailable, "the service cannot reach its records at the moment: try again")
	case errors.Is(err, control.ErrNotFound):
		return newProblem(http.StatusNotFound, codeNotFound, "there is no such object")
	default:
		return newProblem(http.StatusInternalServerError, codeInternal, "the service has a fault of its own")
	}
}

// refusals says each reason in a sentence.
var refusals = map[reason.Code]string{
	reason.InvalidToken:            "the credential is not valid",
	reason.TokenExpired:            "the access token has expired",
	reason.DeviceRevoked:           "this device has been revoked",
	reason.DeviceMismatch:          "the key is not the device's",
	reason.RetryLater:              "no decision could be made: try again later",
	reason.SessionUnknown:          "there is no such session",
	reason.DeviceNotFound:          "there is no such device",
	reason.UserDisabled:            "this user is disabled",
	reason.NoActiveSubscription:    "this user has no active subscription",
	reason.SubscriptionExpired:     "this user's subscription has expired",
	reason.QuotaExceeded:           "this user's quota is used up",
	reason.SessionLimit:            "this user has as many sessions as the plan allows",
	reason.DeviceLimit:             "this user has as many devices as the plan allows",
	reason.RegionUnavailable:       "there is no gateway in a region that the plan allows",
	reason.NoOutlineNodesAvailable: "there is no way out to the internet at the moment",
}

// setUpHuma points huma's package-wide settings to ours, once.
var setUpHuma = sync.OnceFunc(func() {
	huma.DefaultArrayNullable = false                                            //nolint:reassign // huma has no other way to say it
	huma.NewError = func(status int, _ string, errs ...error) huma.StatusError { //nolint:reassign // huma has no other way to say it
		return requestProblem(status, errs)
	}
})

// requestProblem is what huma found wrong with a request before any of our code
// saw it. Of its messages only those pass that cannot hold a rejected value.
func requestProblem(status int, errs []error) *Problem {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return newProblem(status, codeTooLarge, "the request is too large")
	case http.StatusUnsupportedMediaType:
		return newProblem(status, codeUnsupportedMedia, "the body must be application/json")
	case http.StatusRequestTimeout:
		return newProblem(status, codeTimeout, "the request took too long to arrive")
	}
	// A body that breaks off is reported by huma as our fault, which it is not:
	// our own errors never come this way.
	p := newProblem(http.StatusUnprocessableEntity, codeInvalidRequest, "the request is not valid")
	if status == http.StatusBadRequest || status >= http.StatusInternalServerError {
		p = newProblem(http.StatusBadRequest, codeInvalidRequest, "the request has no readable JSON body")
	}
	for _, err := range errs {
		var detailer huma.ErrorDetailer
		if err == nil || !errors.As(err, &detailer) {
			continue
		}
		detail := detailer.ErrorDetail()
		p.Errors = append(p.Errors, ProblemField{Location: safeLocation(detail.Location), Message: safeMessage(detail.Message)})
	}
	return p
}

func safeMessage(message string) string {
	message, _, _ = strings.Cut(message, ": ") // what follows is a parser's error, which may quote
	for _, known := range []string{
		"expected ", "unexpected property", "unknown query parameter", "required ", "invalid integer", "invalid boolean", "invalid date/time", notTogether,
	} {
		if strings.HasPrefix(message, known) {
			return message
		}
	}
	return "not valid JSON for this request"
}

var (
	ownName = regexp.MustCompile(`^[a-z][a-z_]{0,31}(\[\d{1,5}\])?$`)
	header  = regexp.MustCompile(`^[A-Z][A-Za-z-]{0,31}$`)
)

// safeLocation keeps names that could be ours; another could be a secret that
// ended up in the wrong place.
func safeLocation(location string) string {
	parts := strings.Split(location, ".")
	for i, part := range parts {
		if !ownName.MatchString(part) && (i != 1 || parts[0] != "header" || !header.MatchString(part)) {
			parts[i] = "?"
		}
	}
	return strings.Join(parts, ".")
}
