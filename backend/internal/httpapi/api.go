// Package httpapi is the control plane's HTTP face: the device, gateway and
// admin API, their OpenAPI document and the one table that turns the domain's
// errors into answers.
package httpapi

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/httvps/httvps/backend/internal/apidocs"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
)

const (
	requestTimeout = 10 * time.Second
	bodyTimeout    = 5 * time.Second
	maxBody        = 64 << 10
	maxEndsBody    = 512 << 10 // 1,000 ended sessions with their reasons
)

// Observer is told what happened, for metrics. Labels come from fixed sets.
type Observer interface {
	// Request says how an operation was answered.
	Request(operation string, status int, took time.Duration)
	// Decision says how a gateway's question was answered: "allowed" or a reason.
	Decision(outcome string)
	// Enrolment says how an enrolment ended: "enrolled", "repeated", a reason or a problem's code.
	Enrolment(outcome string)
	// Usage says what became of an entry of a gateway's usage reports.
	Usage(result string)
	// UsageLag says how old the oldest entry of a batch was.
	UsageLag(age time.Duration)
	// Exit says how a gateway's question for a session's Outline server was answered.
	Exit(result string)
	// OutlineFailure says how a session's Outline server failed.
	OutlineFailure(failure string)
	// OutlineProbe says what a gateway's probe through an Outline server saw: a
	// failure, or nothing when it worked.
	OutlineProbe(failure string)
	// QuotaLease says in which state a quota was when a gateway renewed its lease of it.
	QuotaLease(state string)
	// Login says how an attempt to sign in ended: "ok", "refused", "limited" or "failed".
	Login(outcome string)
	// QuotaReached says that a part of a quota that is to be warned of was used, or the whole.
	QuotaReached(whole bool)
}

// Options are what the handlers need.
type Options struct {
	Authority *control.Authority
	Log       *slog.Logger
	Observer  Observer
	// Hub has the events that gateways follow.
	Hub *events.Hub
	// Ready says whether the service can do its work.
	Ready func(context.Context) error
	// Bus says how the wake-up bus is: "none", "connected" or "away".
	Bus func() string
	// Metrics answers /metrics.
	Metrics http.Handler
	// AdminApart puts the admin API, health and metrics on the admin handler
	// only. Without it they are part of the public one.
	AdminApart bool
	// Diagnostics shows /metrics, /openapi.json and /docs/ on the public handler when
	// the admin API is not apart.
	Diagnostics bool
	// RefusalsPerMinute bounds refused attempts to redeem codes per client address.
	RefusalsPerMinute int
}

// Handlers are what the listeners serve.
type Handlers struct {
	Public http.Handler
	Admin  http.Handler // nil unless AdminApart
}

// New returns the handlers.
func New(opts Options) (Handlers, error) {
	s := &server{
		authority: opts.Authority, hub: opts.Hub, log: opts.Log, observer: opts.Observer,
		attempts: newAttempts(opts.RefusalsPerMinute, opts.Authority.Now), devices: make(turns, devicesAtOnce),
	}
	if opts.Bus == nil {
		opts.Bus = func() string { return "none" }
	}
	document, err := OpenAPI()
	if err != nil {
		return Handlers{}, err
	}
	page, err := apidocs.New()
	if err != nil {
		return Handlers{}, err
	}
	diagnostics := http.NewServeMux()
	diagnostics.HandleFunc("GET /livez", plain(func(context.Context) error { return nil }, nil))
	diagnostics.HandleFunc("GET /readyz", plain(opts.Ready, opts.Bus))
	diagnostics.HandleFunc("GET /api/v1/health", health(opts.Ready, opts.Bus))
	if opts.AdminApart || opts.Diagnostics {
		diagnostics.Handle("GET /metrics", opts.Metrics)
		diagnostics.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(document) // the client may have gone
		})
		diagnostics.Handle("GET "+apidocs.Path, page)
	}

	outer := &front{prefix: opts.Authority.Identity().Prefix}
	api := s.router()
	s.registerDevice(api.api)
	s.registerMe(api.api)
	s.registerGateway(api.api)
	s.registerUsage(api.api)
	s.registerOutline(api.api)
	s.registerQuota(api.api)
	s.registerEvents(api.api)
	if opts.AdminApart {
		outer.inner = s.wrap(api.router)
		admin := s.router()
		s.registerAdmin(admin.api)
		s.registerClose(admin.api)
		return Handlers{Public: closing(outer), Admin: closing(orElse(diagnostics, s.wrap(admin.router)))}, nil
	}
	s.registerAdmin(api.api)
	s.registerClose(api.api)
	api.router.Get("/api/v1/health", health(opts.Ready, opts.Bus))
	outer.inner = s.wrap(api.router)
	outer.diagnostics = orElse(diagnostics, http.HandlerFunc(nothingHere))
	return Handlers{Public: closing(outer)}, nil
}

// server holds what the operations share.
type server struct {
	authority *control.Authority
	hub       *events.Hub
	log       *slog.Logger
	observer  Observer
	attempts  *attempts
	devices   turns
	origins   http.CrossOriginProtection
}

type routed struct {
	router *chi.Mux
	api    huma.API
}

func (s *server) router() routed {
	setUpHuma()
	router := chi.NewMux()
	router.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(http.StatusNotFound, codeNotFound, "there is nothing at this path"))
	})
	router.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(http.StatusMethodNotAllowed, codeMethodNotAllowed, "this path does not take this method"))
	})
	config := huma.DefaultConfig("HTTVPS control plane", "1")
	config.Info.Description = "All addresses are below the service's API base, which invitations and ready lines carry; " +
		"the admin API may have a listener of its own. Errors are application/problem+json with a stable code."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", "" // nothing is served that we did not ask for
	config.CreateHooks = nil                                             // no $schema in bodies
	config.RejectUnknownQueryParameters = true
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		secureDevice:  {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A device's access token."},
		secureGateway: {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A gateway's own assertion (typ gw+jwt)."},
		secureOperator: {Type: "http", Scheme: "bearer", Description: "An operator's API token or a login's (hvt1.…). A browser has that of its login in the cookie " + loginCookie + " instead; " +
			"what changes something then needs the header " + csrfHeader + ", too."},
	}
	api := humachi.New(router, config)
	api.UseMiddleware(s.observe)
	return routed{router: router, api: api}
}

// OpenAPI returns the document that describes all operations.
func OpenAPI() ([]byte, error) {
	s := &server{}
	r := s.router()
	s.registerDevice(r.api)
	s.registerMe(r.api)
	s.registerGateway(r.api)
	s.registerUsage(r.api)
	s.registerOutline(r.api)
	s.registerQuota(r.api)
	s.registerEvents(r.api)
	s.registerAdmin(r.api)
	s.registerClose(r.api)
	document, err := json.MarshalIndent(r.api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, err
	}
	return append(document, '\n'), nil
}

// front is what a stranger meets. Without the prefix there is a bare 404, as
// any server gives.
type front struct {
	prefix      string
	inner       http.Handler
	diagnostics http.Handler // nil when they are elsewhere
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segment, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case subtle.ConstantTimeCompare([]byte(segment), []byte(f.prefix)) == 1:
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = "/"+rest, ""
		f.inner.ServeHTTP(w, inner)
	case f.diagnostics != nil:
		f.diagnostics.ServeHTTP(w, r)
	default:
		nothingHere(w, r)
	}
}

func nothingHere(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }

// orElse serves first when it has the path, else second.
func orElse(first *http.ServeMux, second http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, pattern := first.Handler(r); pattern != "" {
			handler.ServeHTTP(w, r)
			return
		}
		second.ServeHTTP(w, r)
	})
}

// busAway is how the wake-up bus is when it costs time but nothing else: the
// service can do its work without it.
const busAway = "away"

// stateOf says how the service is, as the codes of problems do.
func stateOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, control.ErrStorageFull):
		return codeStorageFull
	default:
		return codeUnavailable
	}
}

// plain answers with one line. bus, which may be nil, adds a remark.
func plain(check func(context.Context) error, bus func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(stateOf(err) + "\n")) // the client may have gone
			return
		}
		if bus != nil && bus() == busAway {
			_, _ = w.Write([]byte("ok, without the wake-up bus\n")) // the client may have gone
			return
		}
		_, _ = w.Write([]byte("ok\n")) // the client may have gone
	}
}

func health(check func(context.Context) error, bus func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		err := check(r.Context())
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"status": stateOf(err), "bus": bus()}) // the client may have gone
	}
}
