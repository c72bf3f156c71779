package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/gate"
)

const (
	secureDevice   = "device"
	secureGateway  = "gateway"
	secureOperator = "operator"
)

type contextKey int

const (
	keyRequestID contextKey = iota
	keyOperator
	keyGateway
	keyDevice
	keyStay
	keyUnbounded
	keyWriter
)

// closing ends the connection with the answer (over HTTP/2 too), unless what
// answers calls stay: nobody holds one who has not said who he is.
func closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		keep := func() { w.Header().Del("Connection") }
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), keyStay, keep)))
	})
}

// stay leaves the connection open behind the answer. It goes on counting as a
// stranger's.
func stay(ctx context.Context) {
	if keep, ok := ctx.Value(keyStay).(func()); ok {
		keep()
	}
}

// known leaves the connection open and takes it out of the limits for strangers.
// It is for gateways and operators: devices say what they want and go.
func known(ctx context.Context) {
	stay(ctx)
	gate.Pass(ctx)
}

// wrap gives every request an id, a deadline and an end that is an answer even
// when a handler panics.
func (s *server) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var raw [12]byte
		_, _ = rand.Read(raw[:]) // never fails
		id := hex.EncodeToString(raw[:])
		ctx := context.WithValue(r.Context(), keyRequestID, id)
		ctx = context.WithValue(ctx, keyUnbounded, r.Context())
		ctx = context.WithValue(ctx, keyWriter, w)
		ctx = control.WithActor(ctx, control.Actor{Address: hostOf(r.RemoteAddr)})
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		h := w.Header()
		h.Set("X-Request-Id", id)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if err, ok := fault.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(fault)
			}
			s.log.ErrorContext(ctx, "request panicked", "request_id", id, "stack", string(debug.Stack()))
			writeProblem(w, newProblem(http.StatusInternalServerError, codeInternal, "the service has a fault of its own"))
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// observe counts and logs each operation. Paths, queries and bodies stay out of
// the log: they may hold secrets.
func (s *server) observe(ctx huma.Context, next func(huma.Context)) {
	begin := time.Now()
	next(ctx)
	took := time.Since(begin)
	operation := ctx.Operation().OperationID
	s.observer.Request(operation, ctx.Status(), took)
	s.log.DebugContext(ctx.Context(), "request", "operation", operation, "status", ctx.Status(),
		"took_ms", took.Milliseconds(), "request_id", requestID(ctx.Context()))
}

// unbounded returns the context of a request without the time that it may take: it
// ends when the client goes.
func unbounded(ctx context.Context) context.Context {
	if outer, ok := ctx.Value(keyUnbounded).(context.Context); ok {
		return outer
	}
	return ctx
}

// patient returns the context of a request that may take longer than others, and
// lets its connection live as long: the server's own limits would end it.
func patient(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if w, ok := ctx.Value(keyWriter).(http.ResponseWriter); ok {
		connection := http.NewResponseController(w)
		_ = connection.SetReadDeadline(time.Time{}) // who cannot do it has no limit either
		_ = connection.SetWriteDeadline(time.Now().Add(limit + sendTimeout))
	}
	return context.WithTimeout(unbounded(ctx), limit)
}

// hostOf is the address that a request came from, without the port.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(keyRequestID).(string)
	return id
}

// bearer returns the credential of a request, or nothing: neither when there are
// two, of which a proxy in front may have looked at the other.
func bearer(ctx huma.Context) string {
	headers := 0
	ctx.EachHeader(func(name, _ string) {
		if name == "Authorization" {
			headers++
		}
	})
	if headers != 1 {
		return ""
	}
	scheme, credential, found := strings.Cut(ctx.Header("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || len(credential) > 4096 {
		return ""
	}
	return credential
}

// authenticate makes an operation ask for a credential before it looks at
// anything else of the request. check returns the context for the handler, or why
// the credential is not enough for the operation.
func (s *server) authenticate(check func(ctx huma.Context, credential string) (context.Context, error)) huma.Middlewares {
	return huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		inner, err := check(ctx, bearer(ctx))
		if err != nil {
			p := s.answer(ctx.Context(), err)
			if p.Status == http.StatusUnauthorized {
				ctx.SetHeader("WWW-Authenticate", "Bearer")
			}
			ctx.SetHeader("Content-Type", p.ContentType(""))
			ctx.SetStatus(p.Status)
			_, _ = ctx.BodyWriter().Write(mustJSON(p)) // the client may have gone
			return
		}
		next(huma.WithContext(ctx, inner))
	}}
}

func (s *server) asOperator() huma.Middlewares {
	return s.authenticate(func(hc huma.Context, credential string) (context.Context, error) {
		ctx := hc.Context()
		operator, err := s.operatorFrom(hc, credential)
		if err != nil {
			return ctx, err
		}
		known(ctx)
		if refusal := mayNot(operator.Token.Role, hc.Operation().OperationID); refusal != nil {
			return ctx, refusal
		}
		ctx, err = control.ByOperator(context.WithValue(ctx, keyOperator, operator), operator, hc.Header(reasonHeader))
		if _, invalid := errors.AsType[*control.InvalidError](err); invalid {
			return ctx, reasonProblem()
		}
		return ctx, err
	})
}

// operatorFrom returns the operator whose token came in the header Authorization, or
// in a browser's cookie when there is no such header. What comes with a cookie and
// changes something must show that its sender reads our answers.
func (s *server) operatorFrom(hc huma.Context, credential string) (control.Bearer, error) {
	cookie, err := huma.ReadCookie(hc, loginCookie)
	if hc.Header("Authorization") != "" || err != nil {
		return s.authority.AuthenticateOperator(hc.Context(), credential)
	}
	operator, err := s.authority.AuthenticateCookie(hc.Context(), cookie.Value)
	if err != nil || hc.Method() == http.MethodGet || hmac.Equal([]byte(hc.Header(csrfHeader)), []byte(control.CSRFToken(cookie.Value))) {
		return operator, err
	}
	return control.Bearer{}, newProblem(http.StatusForbidden, codeCrossOrigin, "a request with a cookie that changes something needs the header "+csrfHeader)
}

// ownOrigin refuses what a page of another origin has a browser send. Other clients
// than browsers say nothing about that.
func (s *server) ownOrigin(ctx huma.Context, next func(huma.Context)) {
	r, _ := humachi.Unwrap(ctx)
	if s.origins.Check(r) == nil {
		next(ctx)
		return
	}
	p := newProblem(http.StatusForbidden, codeCrossOrigin, "a page of another origin may not ask this")
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_, _ = ctx.BodyWriter().Write(mustJSON(p)) // the client may have gone
}

func (s *server) asGateway() huma.Middlewares {
	return s.authenticate(func(hc huma.Context, credential string) (context.Context, error) {
		ctx := hc.Context()
		gateway, err := s.authority.AuthenticateGateway(ctx, credential)
		if err == nil {
			known(ctx)
		}
		return control.ByGateway(context.WithValue(ctx, keyGateway, gateway), gateway), err
	})
}

func (s *server) asDevice() huma.Middlewares {
	return s.authenticate(func(hc huma.Context, credential string) (context.Context, error) {
		ctx := hc.Context()
		leave, err := s.devices.take(ctx)
		if err != nil {
			return ctx, err
		}
		defer leave()
		device, err := s.authority.AuthenticateDevice(ctx, credential)
		return control.ByDevice(context.WithValue(ctx, keyDevice, device), device), s.authority.WithSupport(ctx, err)
	})
}

// deviceOf returns the id of the device that asks.
func deviceOf(ctx context.Context) string {
	device, _ := ctx.Value(keyDevice).(string)
	return device
}

func operatorOf(ctx context.Context) control.Bearer {
	operator, _ := ctx.Value(keyOperator).(control.Bearer)
	return operator
}

func gatewayOf(ctx context.Context) control.Gateway {
	gateway, _ := ctx.Value(keyGateway).(control.Gateway)
	return gateway
}

// answer turns an error into a problem, and logs it when it is our own. That a client
// did not wait is not.
func (s *server) answer(ctx context.Context, err error) *Problem {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		if ctx.Err() != nil { // the client has gone, or the service is too slow: either way it was asked to wait
			p = newProblem(http.StatusServiceUnavailable, codeTimeout, "the service could not answer in time: try again")
		}
		level := slog.LevelError
		if unbounded(ctx).Err() != nil {
			level = slog.LevelDebug
		}
		s.log.Log(ctx, level, "request failed", "error", err.Error(), "request_id", requestID(ctx))
	}
	return p
}

// withSupport says with a refusal whom the person can turn to.
func withSupport[I, O any](a *control.Authority, handle func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		return out, a.WithSupport(ctx, err)
	}
}

// register adds an operation whose errors are answered by the table.
func register[I, O any](s *server, api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	op.BodyReadTimeout = bodyTimeout
	if op.Responses == nil {
		op.Responses = make(map[string]*huma.Response)
	}
	op.Responses["default"] = &huma.Response{
		Description: "A problem.",
		Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: api.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem")},
		},
	}
	if ofDevices(op) {
		handle = inTurn(s.devices, withSupport(s.authority, handle))
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err == nil {
			return out, nil
		}
		p := s.answer(ctx, err)
		if limited, ok := errors.AsType[*control.RateLimitedError](err); ok {
			wait := int(limited.RetryAfter/time.Second) + 1
			return nil, huma.ErrorWithHeaders(p, http.Header{"Retry-After": {strconv.Itoa(wait)}})
		}
		return nil, p
	})
}
