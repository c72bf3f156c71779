package store

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

const (
	manyUsers = 100_000
	fewUsers  = 1_000

	speedRounds   = 9
	validateCalls = 400 // in a round, by each contender
	usageCalls    = 24
	speedSessions = 10_000
	batchReports  = 100
	listCalls     = 400 // of each page
	bootID        = "speed"
)

// speedEngines are the databases that are measured, as durable as in earnest.
var speedEngines = map[string]func(b *testing.B) *speedPlace{
	"SQLite": func(b *testing.B) *speedPlace {
		b.Helper()
		return &speedPlace{dir: b.TempDir()}
	},
	"PostgreSQL": func(b *testing.B) *speedPlace {
		b.Helper()
		return &speedPlace{dir: b.TempDir(), server: storetest.StartServer(b)}
	},
}

// speedPlace makes databases that are copies of one.
type speedPlace struct {
	dir    string
	server *storetest.Server // nil: SQLite
	made   int
}

func (p *speedPlace) empty(b *testing.B) Config {
	b.Helper()
	if p.server != nil {
		return Config{URL: p.server.Database(b), MaxConnections: defaultMaxConnections}
	}
	p.made++
	return Config{Path: filepath.Join(p.dir, fmt.Sprint(p.made, ".db"))}
}

// copyOf copies a database that nobody has open.
func (p *speedPlace) copyOf(b *testing.B, from Config) Config {
	b.Helper()
	to := p.empty(b)
	if p.server == nil {
		data, err := os.ReadFile(from.Path)
		if err == nil {
			err = os.WriteFile(to.Path, data, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
		return to
	}
	db, err := sql.Open("pgx", p.server.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	name := func(c Config) string {
		u, err := url.Parse(c.URL)
		if err != nil {
			b.Fatal(err)
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	for _, statement := range []string{"DROP DATABASE " + name(to), "CREATE DATABASE " + name(to) + " TEMPLATE " + name(from)} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	return to
}

// speedService is a control plane on a database, and what it takes to call it.
type speedService struct {
	store   *Store
	handler http.Handler
	world   speedWorld
}

// speedWorld is what copies of a database have in common.
type speedWorld struct {
	users     int
	token     string
	gatewayID string
	prefix    string
}

func speedKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("gateway"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// speedID is the id of the n-th object of a kind.
func speedID(kind string, n int) string {
	sum := sha256.Sum256(fmt.Append(nil, kind, n))
	var id uuid.UUID
	copy(id[:], sum[:])
	binary.BigEndian.PutUint32(id[:4], uint32(n)) // in the order of their making, as the service's own
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id.String()
}

func speedSession(n int) string { return strings.ReplaceAll(speedID("session", n), "-", "") }

func speedPublicKey(n int) ed25519.PublicKey {
	sum := sha256.Sum256(fmt.Append(nil, "key", n))
	return sum[:]
}

// serve opens a control plane on a database.
func (p *speedPlace) serve(b *testing.B, where Config, world speedWorld) *speedService {
	b.Helper()
	records, err := Open(b.Context(), where)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = records.Close() }) // may be closed already
	return &speedService{store: records, world: world, handler: httpHandler(b, records, p.authority(b, records))}
}

func (p *speedPlace) authority(b *testing.B, records *Store) *control.Authority {
	b.Helper()
	key, err := seal.Open(seal.Source{File: filepath.Join(p.dir, "kek"), Make: true})
	if err != nil {
		b.Fatal(err)
	}
	authority, err := control.Open(b.Context(), control.Options{
		Store: records, Sealer: key, Now: time.Now, ServiceName: "Speed", PublicURL: "https://vpn.example.net", Heartbeat: 5 * time.Second,
		KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	return authority
}

type unobserved struct{}

func (unobserved) Request(string, int, time.Duration) {}
func (unobserved) Decision(string)                    {}
func (unobserved) Enrolment(string)                   {}
func (unobserved) Usage(string)                       {}
func (unobserved) UsageLag(time.Duration)             {}
func (unobserved) QuotaLease(string)                  {}
func (unobserved) QuotaReached(bool)                  {}
func (unobserved) Exit(string)                        {}
func (unobserved) OutlineFailure(string)              {}
func (unobserved) OutlineProbe(string)                {}
func (unobserved) Streams(int)                        {}
func (unobserved) StreamEnded(string)                 {}
func (unobserved) EventSent(string, time.Duration)    {}
func (unobserved) Woken(string)                       {}
func (unobserved) Announced(bool)                     {}

func httpHandler(b *testing.B, records *Store, authority *control.Authority) http.Handler {
	b.Helper()
	hub := events.NewHub(events.Options{Log: authority, Observer: unobserved{}, Logger: slog.New(slog.DiscardHandler)})
	handlers, err := httpapi.New(httpapi.Options{
		Authority: authority, Hub: hub, Log: slog.New(slog.DiscardHandler), Observer: unobserved{}, Metrics: http.NotFoundHandler(),
		Ready: records.Ping, RefusalsPerMinute: 6000,
	})
	if err != nil {
		b.Fatal(err)
	}
	return handlers.Public
}

// populate makes a database with so many users, each with a device and a
// subscription, and with live sessions of the first of them.
func (p *speedPlace) populate(b *testing.B, users int) (Config, speedWorld) {
	b.Helper()
	where := p.empty(b)
	records, err := Open(b.Context(), where)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := records.Close(); err != nil {
			b.Error(err)
		}
	}()
	authority := p.authority(b, records)
	world := speedWorld{users: users, prefix: "/" + authority.Identity().Prefix}
	access, err := authority.OpenDev(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	world.token = access.Token
	link, err := authority.OpenLocalGateway(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	code, nonce, public := link[strings.Index(link, "code=")+len("code="):], authority.Challenge(), speedKey().Public().(ed25519.PublicKey)
	hash := sha256.Sum256([]byte(code))
	gateway, _, err := authority.JoinGateway(b.Context(), control.Join{
		Code: code, PublicKey: public, URL: "wss://gw.example.net/t", Proof: control.Proof{
			Nonce: nonce, Signature: ed25519.Sign(speedKey(), slices.Concat([]byte("HTTVPS1 join\x00"), hash[:], public, nonce)),
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	world.gatewayID = gateway.ID
	name := "speed"
	plan, _, err := authority.CreatePlan(b.Context(), control.PlanFields{Name: &name}, control.Once{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UnixMicro()
	fillTable(b, records, "users (id, name, note, disabled_at, created_at)", users, func(n int) []any {
		return []any{speedID("user", n), fmt.Sprintf("user-%06d", n), "", nil, now}
	})
	fillTable(b, records, "devices (id, user_id, name, platform, public_key, generation, revoked_at, last_seen_at, created_at)", users, func(n int) []any {
		return []any{speedID("device", n), speedID("user", n), fmt.Sprintf("phone-%06d", n), "linux", []byte(speedPublicKey(n)), 1, nil, nil, now}
	})
	fillTable(b, records, "subscriptions (id, user_id, plan_id, starts_at, ends_at, created_at)", users, func(n int) []any {
		return []any{speedID("subscription", n), speedID("user", n), plan.ID, now, nil, now}
	})
	fillTable(b, records, "sessions (id, device_id, user_id, subscription_id, gateway_id, boot_id, started_at, ended_at, end_reason)", users, func(n int) []any {
		var ended any = now
		if n < speedSessions {
			ended = nil
		}
		return []any{speedSession(n), speedID("device", n), speedID("user", n), speedID("subscription", n), gateway.ID, bootID, now + int64(n), ended, ""}
	})
	if _, err := records.writer.ExecContext(b.Context(), "ANALYZE"); err != nil {
		b.Fatal(err)
	}
	return where, world
}

// fillTable inserts rows, many with a statement.
func fillTable(b *testing.B, records *Store, table string, rows int, row func(n int) []any) {
	b.Helper()
	const part = 500
	tx, err := records.writer.BeginTx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it does nothing
	for n := 0; n < rows; {
		var (
			text strings.Builder
			args []any
		)
		fmt.Fprint(&text, "INSERT INTO ", table, " VALUES ")
		for first := n; n < min(first+part, rows); n++ {
			if n > first {
				text.WriteString(", ")
			}
			for i, value := range row(n) {
				args = append(args, value)
				fmt.Fprint(&text, [2]string{", $", "($"}[min(1, 1-min(i, 1))], len(args))
			}
			text.WriteString(")")
		}
		if _, err := tx.ExecContext(b.Context(), text.String(), args...); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// spoken is a statement with its arguments.
type spoken struct {
	exec  bool
	query string
	args  []any
}

// listener writes down what a unit of work says to the database.
type listener struct {
	statements
	heard *[]spoken
}

func (l listener) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	*l.heard = append(*l.heard, spoken{true, query, args})
	return l.statements.ExecContext(ctx, query, args...)
}

func (l listener) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	*l.heard = append(*l.heard, spoken{false, query, args})
	return l.statements.QueryContext(ctx, query, args...)
}

func (l listener) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	*l.heard = append(*l.heard, spoken{false, query, args})
	return l.statements.QueryRowContext(ctx, query, args...)
}

// bare answers with nothing but the SQL that the service ran for the same request.
type bare struct {
	store  *Store
	into   func() any // what a body is decoded into
	lines  map[string][]spoken
	answer []byte
}

func (h *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := h.into()
	if err := json.NewDecoder(r.Body).Decode(in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := h.run(r.Context(), h.lines[r.Header.Get("X-Request")]); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(h.answer) // to memory
}

func (h *bare) run(ctx context.Context, lines []spoken) error {
	if len(lines) == 0 {
		return errors.New("nothing is known of this request")
	}
	tx, err := h.store.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it does nothing
	for _, line := range lines {
		if line.exec {
			if _, err := tx.ExecContext(ctx, line.query, line.args...); err != nil {
				return err
			}
			continue
		}
		if err := drain(tx.QueryContext(ctx, line.query, line.args...)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// drain reads all rows and keeps nothing.
func drain(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(any)
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
	}
	return rows.Err()
}

// speedRequest is a request of a gateway.
type speedRequest struct {
	path string
	body string
}

func (s *speedService) gatewayCall(b *testing.B, handler http.Handler, n int, r speedRequest, assertion string) *httptest.ResponseRecorder {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, s.world.prefix+r.path, strings.NewReader(r.body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+assertion)
	req.Header.Set("X-Request", fmt.Sprint(n))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		b.Fatalf("%s %s: %d %s", r.path, r.body, w.Code, w.Body)
	}
	return w
}

func (s *speedService) assertion(b *testing.B) string {
	b.Helper()
	text, err := ticket.SignAssertion(speedKey(), s.world.gatewayID, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// validations asks for new sessions of devices that have none.
func validations() []speedRequest {
	var requests []speedRequest
	for n := range 2 * speedRounds * validateCalls {
		device := control.Device{PublicKey: speedPublicKey(speedSessions + n)}
		body, err := json.Marshal(map[string]any{
			"session_id": speedSession(manyUsers + n), "device_id": speedID("device", speedSessions+n),
			"key_thumbprint": device.Thumbprint(), "generation": 1, "boot_id": bootID,
		})
		if err != nil {
			panic(err)
		}
		requests = append(requests, speedRequest{"/api/v1/auth/validate-device", string(body)})
	}
	return requests
}

// usageBatches report about the running sessions in turn.
func usageBatches() []speedRequest {
	var requests []speedRequest
	for n := range 2 * speedRounds * usageCalls {
		var reports []map[string]any
		for i := range batchReports {
			turn, session := (n*batchReports+i)/speedSessions+1, (n*batchReports+i)%speedSessions
			reports = append(reports, map[string]any{
				"boot_id": bootID, "session_id": speedSession(session), "sequence": turn,
				"up": turn * 1000, "down": turn * 100_000, "at": time.Now().Add(time.Duration(turn) * time.Second).UTC(),
			})
		}
		body, err := json.Marshal(map[string]any{"reports": reports})
		if err != nil {
			panic(err)
		}
		requests = append(requests, speedRequest{"/api/v1/usage/report", string(body)})
	}
	return requests
}

// BenchmarkControlPlane compares what gateways ask most with a handler that only
// decodes the request and runs the same SQL on a copy of the database, with 100,000
// users. Requests come from 1 and from 16 callers, without sockets; the figures are
// medians of rounds in which both take turns.
func BenchmarkControlPlane(b *testing.B) {
	for engine, open := range speedEngines {
		b.Run(engine, func(b *testing.B) {
			place := open(b)
			from, world := place.populate(b, manyUsers)
			b.Run("validate-device", func(b *testing.B) {
				place.compare(b, from, world, validations(), func() any { return new(httpapi.ValidateDevice) })
			})
			b.Run("usage-report", func(b *testing.B) {
				place.compare(b, from, world, usageBatches(), func() any { return new(httpapi.UsageReports) })
			})
		})
	}
}

func (p *speedPlace) compare(b *testing.B, from Config, world speedWorld, requests []speedRequest, into func() any) {
	b.Helper()
	calls := len(requests) / (2 * speedRounds) // in a round
	recorded := p.serve(b, p.copyOf(b, from), world)
	h := &bare{into: into, lines: make(map[string][]spoken)}
	var heard []spoken
	recorded.store.overhear = func(s statements) statements {
		heard = nil // only what the last run of a unit of work said
		return listener{s, &heard}
	}
	assertion := ""
	for n, r := range requests {
		if n%calls == 0 {
			assertion = recorded.assertion(b)
		}
		h.answer = recorded.gatewayCall(b, recorded.handler, n, r, assertion).Body.Bytes()
		h.lines[fmt.Sprint(n)] = heard
	}
	if err := recorded.store.Close(); err != nil {
		b.Fatal(err)
	}
	full, only := p.serve(b, p.copyOf(b, from), world), p.serve(b, p.copyOf(b, from), world)
	h.store = only.store
	b.ResetTimer()
	next := 0
	for _, callers := range []int{1, 16} {
		var ours, theirs, ratios []float64
		for round := range speedRounds {
			part := requests[next : next+calls]
			rates := map[bool]float64{}
			for _, mine := range [][]bool{{true, false}, {false, true}}[round%2] {
				handler := http.Handler(h)
				if mine {
					handler = full.handler
				}
				rates[mine] = full.rate(b, handler, next, part, callers)
			}
			next += calls
			ours, theirs, ratios = append(ours, rates[true]), append(theirs, rates[false]), append(ratios, rates[true]/rates[false])
		}
		b.ReportMetric(median(ours), fmt.Sprintf("calls/s-of-%d", callers))
		b.ReportMetric(median(theirs), fmt.Sprintf("bare/s-of-%d", callers))
		b.ReportMetric(median(ratios), fmt.Sprintf("ratio-of-%d", callers))
	}
	b.ReportMetric(0, "ns/op")
}

// rate has callers send requests and returns how many a second were answered.
func (s *speedService) rate(b *testing.B, handler http.Handler, first int, requests []speedRequest, callers int) float64 {
	b.Helper()
	assertion := s.assertion(b)
	var (
		group sync.WaitGroup
		next  atomic.Int64
	)
	began := time.Now()
	for range callers {
		group.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(requests); n = int(next.Add(1)) - 1 {
				s.gatewayCall(b, handler, first+n, requests[n], assertion)
			}
		})
	}
	group.Wait()
	return float64(len(requests)) / time.Since(began).Seconds()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkLists compares the time of pages of lists with 100,000 users with that
// of the same with 1,000: 99th percentiles, both in turn.
func BenchmarkLists(b *testing.B) {
	for engine, open := range speedEngines {
		b.Run(engine, func(b *testing.B) {
			place := open(b)
			services := make(map[int]*speedService)
			for _, users := range []int{fewUsers, manyUsers} {
				where, world := place.populate(b, users)
				services[users] = place.serve(b, where, world)
			}
			for name, path := range speedPages {
				b.Run(name, func(b *testing.B) { comparePages(b, services, path) })
			}
		})
	}
}

// speedPages are the pages; with a limit, from the middle of the list.
var speedPages = map[string]string{
	"users":                "/users",
	"users-middle":         "/users?limit=50",
	"users-search":         "/users?q=user-0005",
	"users-by-name":        "/users?name=user-000500",
	"devices-middle":       "/devices?limit=50",
	"devices-search":       "/devices?q=PHONE-0005",
	"devices-of-user":      "/devices?user_id=" + speedID("user", 500),
	"subscriptions-middle": "/subscriptions?limit=50",
	"sessions-live-middle": "/sessions?limit=50",
	"sessions-all-middle":  "/sessions?state=all&limit=50",
	"sessions-of-user":     "/sessions?state=all&user_id=" + speedID("user", 500),
	"invitations-of-user":  "/users/" + speedID("user", 500) + "/invitations",
}

// middle returns the path of a part in the middle of a list.
func (s *speedService) middle(b *testing.B, path string) string {
	b.Helper()
	whole := strings.Replace(path, "limit=50", "limit=500", 1)
	at := whole
	for range max(1, s.world.users/2/500) {
		var page struct {
			Next string `json:"next"`
		}
		if err := json.Unmarshal(s.page(b, at), &page); err != nil {
			b.Fatal(err)
		}
		if page.Next == "" {
			break
		}
		at = whole + "&cursor=" + url.QueryEscape(page.Next)
	}
	return strings.Replace(at, "limit=500", "limit=50", 1)
}

func (s *speedService) page(b *testing.B, path string) []byte {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, s.world.prefix+"/api/v1/admin"+path, http.NoBody)
	req.Header.Set("Authorization", "Bearer "+s.world.token)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		b.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	data, err := io.ReadAll(w.Body)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func comparePages(b *testing.B, services map[int]*speedService, path string) {
	b.Helper()
	times, paths := make(map[int][]float64), make(map[int]string)
	for users, s := range services {
		paths[users] = path
		if strings.HasSuffix(path, "limit=50") {
			paths[users] = s.middle(b, path)
		}
		s.page(b, paths[users])
	}
	b.ResetTimer()
	for range listCalls {
		for users, s := range services {
			began := time.Now()
			s.page(b, paths[users])
			times[users] = append(times[users], float64(time.Since(began).Microseconds())/1000)
		}
	}
	at := func(users, percent int) float64 {
		slices.Sort(times[users])
		return times[users][len(times[users])*percent/100]
	}
	b.ReportMetric(at(fewUsers, 99), "ms-p99-of-1k")
	b.ReportMetric(at(manyUsers, 99), "ms-p99-of-100k")
	b.ReportMetric(at(manyUsers, 50), "ms-p50-of-100k")
	b.ReportMetric(at(manyUsers, 99)/at(fewUsers, 99), "ratio-p99")
	b.ReportMetric(at(manyUsers, 50)/at(fewUsers, 50), "ratio-p50")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdle is the memory of the shipped program with 100,000 users and nothing
// to do, after each of them has been listed once.
func BenchmarkIdle(b *testing.B) {
	for engine, open := range speedEngines {
		b.Run(engine, func(b *testing.B) {
			place := open(b)
			where, world := place.populate(b, manyUsers)
			environ := []string{"HTTVPS_BACKEND_KEK_FILE=" + filepath.Join(place.dir, "kek")}
			if where.URL != "" {
				environ = append(environ, "HTTVPS_BACKEND_DATABASE_URL="+where.URL)
			} else {
				environ = append(environ, "HTTVPS_BACKEND_DATABASE_PATH="+where.Path)
			}
			program := startProgram(b, environ)
			program.list(b, world)
			const settle = 5 * time.Second
			<-time.After(settle)
			b.ReportMetric(program.resident(b), "MiB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// program is a running httvps-backend.
type program struct {
	pid    int
	admin  string
	client *http.Client
}

// startProgram builds httvps-backend and runs it until the benchmark ends.
func startProgram(b *testing.B, environ []string) program {
	b.Helper()
	dir := b.TempDir()
	executable := filepath.Join(dir, "httvps-backend")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", executable, "github.com/httvps/httvps/backend/cmd/httvps-backend")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	donor := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1
	donor.Close()
	identity := donor.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(identity.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: identity.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	serve := exec.CommandContext(b.Context(), executable, "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data"))
	serve.Env = append(environ, "HTTVPS_BACKEND_TLS_CERT_FILE="+filepath.Join(dir, "cert.pem"), "HTTVPS_BACKEND_TLS_KEY_FILE="+filepath.Join(dir, "key.pem"))
	var log strings.Builder
	serve.Stderr = &log
	out, err := serve.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = serve.Process.Kill() // or it is over
		_ = serve.Wait()
	})
	var ready struct {
		Admin string `json:"admin"`
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		_ = serve.Process.Kill() // or its log never ends
		_ = serve.Wait()
		b.Fatalf("httvps-backend does not start: %v: %s", err, log.String())
	}
	return program{pid: serve.Process.Pid, admin: ready.Admin, client: donor.Client()}
}

// list reads every user once.
func (p program) list(b *testing.B, world speedWorld) {
	b.Helper()
	seen := 0
	for cursor := ""; ; {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, p.admin+"/api/v1/admin/users?limit=500"+cursor, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+world.token)
		resp, err := p.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("answer is %d: %v", resp.StatusCode, err)
		}
		if seen += len(page.Items); page.Next == "" {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(page.Next)
	}
	if seen < world.users {
		b.Fatalf("%d users are listed, want %d", seen, world.users)
	}
}

// resident returns the memory that the kernel counts as the program's, in MiB.
func (p program) resident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatalf("no VmRSS in %s", status)
	return 0
}
