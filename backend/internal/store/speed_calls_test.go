package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/internal/ticket"
)

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
		b.Errorf("%s %s: %d %s", r.path, r.body, w.Code, w.Body) // one of several callers may be here
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
	if b.Failed() {
		b.FailNow()
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
