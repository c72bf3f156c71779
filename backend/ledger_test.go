//go:build unix

package backend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// counter is a session on one gateway as the test knows it to be.
type counter struct {
	session string
	up      uint64
	down    uint64
	last    uint64
	acked   uint64
}

type usageReport struct {
	BootID    string    `json:"boot_id"`
	SessionID string    `json:"session_id"`
	Sequence  uint64    `json:"sequence"`
	Up        uint64    `json:"up"`
	Down      uint64    `json:"down"`
	At        time.Time `json:"at"`
}

// reporter is a gateway with its durable log of reports.
type reporter struct {
	gateway
	client   *http.Client
	sessions []*counter
	random   *rand.Rand
	at       time.Time
	log      []usageReport        // all ever made
	open     []usageReport        // not acknowledged
	unsure   map[usageReport]bool // sent, and the answer got lost
	arrived  map[string]map[uint64]usageReport
}

// move counts traffic of a session and writes a report about it.
func (r *reporter) move() {
	c := r.sessions[r.random.IntN(len(r.sessions))]
	c.up, c.down, c.last = c.up+r.random.Uint64N(1<<20), c.down+r.random.Uint64N(1<<24), c.last+1
	r.at = r.at.Add(time.Duration(r.random.IntN(120)) * time.Second)
	report := usageReport{BootID: r.boot, SessionID: c.session, Sequence: c.last, Up: c.up, Down: c.down, At: r.at}
	r.log, r.open = append(r.log, report), append(r.open, report)
}

// batch is what a bad network makes of the log: parts are lost, or come late, twice
// or in another order.
func (r *reporter) batch() []usageReport {
	var batch []usageReport
	for _, report := range r.open {
		if r.random.IntN(3) > 0 {
			batch = append(batch, report)
		}
	}
	for range r.random.IntN(8) { // from long ago
		batch = append(batch, r.log[r.random.IntN(len(r.log))])
	}
	r.random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
	return batch[:min(len(batch), control.MaxUsageReports)]
}

// send reports a batch and reports whether an answer came. What is acknowledged
// leaves the log.
func (r *reporter) send(api string, batch []usageReport) bool {
	if len(batch) == 0 {
		return true
	}
	acked, err := r.post(api, batch)
	if err != nil {
		for _, report := range batch {
			r.unsure[report] = true
		}
		return false
	}
	for _, report := range batch {
		if r.arrived[report.SessionID] == nil {
			r.arrived[report.SessionID] = make(map[uint64]usageReport)
		}
		r.arrived[report.SessionID][report.Sequence] = report
	}
	for _, c := range r.sessions {
		c.acked = max(c.acked, acked[c.session])
	}
	r.open = slices.DeleteFunc(r.open, func(report usageReport) bool { return report.Sequence <= acked[report.SessionID] })
	return true
}

func (r *reporter) post(api string, batch []usageReport) (map[string]uint64, error) {
	data, err := json.Marshal(map[string]any{"reports": batch})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.s.t.Context(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/api/v1/usage/report", bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.credential())
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Acknowledged []struct {
			SessionID string `json:"session_id"`
			Sequence  uint64 `json:"sequence"`
		} `json:"acknowledged"`
		Problems []json.RawMessage `json:"problems"`
	}
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(text, &answer)
	}
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode >= http.StatusInternalServerError:
		if resp.StatusCode != http.StatusServiceUnavailable {
			r.s.t.Errorf("answer is %d %s, want 503 when something is away", resp.StatusCode, text)
		}
		return nil, errors.New("away")
	case resp.StatusCode != http.StatusOK || len(answer.Problems) > 0:
		r.s.t.Errorf("answer is %d %s", resp.StatusCode, text)
		return nil, errors.New("refused")
	}
	acked := make(map[string]uint64)
	for _, ack := range answer.Acknowledged {
		acked[ack.SessionID] = ack.Sequence
	}
	return acked, nil
}

// maxOpen bounds what a reporter has to say: while the control plane is away for long,
// on a busy machine, nothing is gained by more.
const maxOpen = 200

func TestTheLedgerIsExactThoughAllIsKilledOnBothEngines(t *testing.T) {
	kills := 20
	if os.Getenv("HTTVPS_SOAK") == "1" {
		kills = 200
	}
	t.Run("SQLite", func(t *testing.T) { testLedger(t, kills, nil) })
	t.Run("PostgreSQL", func(t *testing.T) { testLedger(t, kills, storetest.StartServer(t)) })
}

// testLedger kills the control plane, and the database server in turn when there
// is one.
func testLedger(t *testing.T, kills int, server *storetest.Server) {
	t.Helper()
	v := newVictim(t, dataDir(t), server)
	v.start()
	reporters, subscriptions := v.fleet()

	var (
		group sync.WaitGroup
		sent  atomic.Int64
		done  = make(chan struct{})
	)
	for _, r := range reporters {
		group.Go(func() {
			for r.running(done) {
				for range 1 + r.random.IntN(6) {
					if len(r.open) < maxOpen {
						r.move()
					}
				}
				sent.Add(1)
				if !r.send(v.where.Load().API, r.batch()) {
					<-time.After(time.Duration(1+r.random.IntN(50)) * time.Millisecond) // nobody insists while it is away
				}
			}
		})
	}
	for n := range kills {
		// After some more batches, in the middle of others.
		for until := sent.Load() + 3 + rand.Int64N(30); sent.Load() < until; {
			<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
		if server != nil && n%2 == 1 {
			server.Kill(t)
			continue
		}
		v.kill()
		v.start()
	}
	close(done)
	group.Wait()
	for _, r := range reporters {
		for tries := 0; len(r.unsure)+len(r.open) > 0; tries++ {
			if tries == 1000 {
				t.Fatal("the control plane does not recover")
			}
			rest := slices.AppendSeq(slices.Clone(r.open), maps.Keys(r.unsure))
			rest = rest[:min(len(rest), control.MaxUsageReports)]
			if r.send(v.where.Load().API, rest) {
				maps.DeleteFunc(r.unsure, func(report usageReport, _ bool) bool { return slices.Contains(rest, report) })
			} else {
				<-time.After(10 * time.Millisecond)
			}
		}
	}
	v.check(reporters, subscriptions)
	v.kill()
	v.checkBooks(reporters, subscriptions)
	t.Logf("%d kills, %d batches, %d reports made", kills, sent.Load(), len(reporters[0].log)+len(reporters[1].log)+len(reporters[2].log))
}

// running reports whether to go on.
func (r *reporter) running(done chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// fleet makes three gateways with sessions of three users and one that the service
// does not know, and returns the users' subscriptions by session.
func (v *victim) fleet() ([]*reporter, map[string]string) {
	v.t.Helper()
	s := v.service()
	s.admin(http.MethodPost, "/regions", map[string]any{"code": "here"}).want(http.StatusCreated, "")
	subscriptions, devices := make(map[string]string), make(map[string]device)
	for i := range 3 {
		user, subscription := s.user(fmt.Sprint("user", i), 1, 100)
		devices[subscription] = s.enrol(s.invite(user))
	}
	var reporters []*reporter
	for i := range 3 {
		made := s.admin(http.MethodPost, "/gateways", map[string]any{"name": fmt.Sprint("gw", i), "region": "here"}).want(http.StatusCreated, "")
		r := &reporter{
			gateway: s.join(made.field("join")), client: v.client, random: rand.New(rand.NewPCG(uint64(i), rand.Uint64())),
			at: time.Now().UTC().Truncate(time.Microsecond).AddDate(0, 0, -300), arrived: make(map[string]map[uint64]usageReport),
			unsure: make(map[usageReport]bool),
		}
		for subscription, d := range devices {
			c := &counter{session: newSessionID()}
			if got := r.validate(c.session, d); !got.Allowed {
				v.t.Fatalf("a session is refused: %+v", got)
			}
			subscriptions[c.session] = subscription
			r.sessions = append(r.sessions, c)
		}
		stray := &counter{session: newSessionID()}
		subscriptions[stray.session] = ""
		r.sessions = append(r.sessions, stray)
		reporters = append(reporters, r)
	}
	return reporters, subscriptions
}

type verdict struct {
	OK           bool            `json:"ok"`
	Faults       int             `json:"faults"`
	Total        control.Traffic `json:"total"`
	Unattributed control.Traffic `json:"unattributed"`
	Differences  json.RawMessage `json:"differences"`
}

// check compares what the service says with what was moved.
func (v *victim) check(reporters []*reporter, subscriptions map[string]string) {
	v.t.Helper()
	s := v.service()
	var got verdict
	s.admin(http.MethodGet, "/usage/verify", nil).want(http.StatusOK, "").into(&got)
	var total, stray control.Traffic
	for _, r := range reporters {
		for _, c := range r.sessions {
			moved := control.Traffic{Up: int64(c.up), Down: int64(c.down)}
			total = total.Plus(moved)
			if subscriptions[c.session] == "" {
				stray = stray.Plus(moved)
			}
			if c.acked != c.last {
				v.t.Errorf("session %s: %d acknowledged, want %d", c.session, c.acked, c.last)
			}
		}
	}
	if !got.OK || got.Faults != 0 || got.Total != total || got.Unattributed != stray {
		v.t.Errorf("verdict is %+v %s, want %+v of which %+v unattributed", got, got.Differences, total, stray)
	}
}

// checkBooks opens what the killed service left and compares each sum with what
// was moved: by session, and by quarter of an hour.
func (v *victim) checkBooks(reporters []*reporter, subscriptions map[string]string) {
	v.t.Helper()
	records, err := store.Open(v.t.Context(), v.records())
	if err != nil {
		v.t.Fatal(err)
	}
	defer records.Close()
	type page struct {
		subscription string
		bucket       int64
	}
	want := make(map[page]control.Traffic)
	err = records.Read(v.t.Context(), func(ctx context.Context, tx control.Tx) error {
		for _, r := range reporters {
			for _, c := range r.sessions {
				sum, err := tx.UsageSession(ctx, control.UsageKey{GatewayID: r.id, BootID: r.boot, SessionID: c.session})
				if err != nil {
					return err
				}
				if moved := (control.Traffic{Up: int64(c.up), Down: int64(c.down)}); sum.Traffic != moved || sum.SubscriptionID != subscriptions[c.session] {
					v.t.Errorf("session %s has %+v, want %+v of %q", c.session, sum, moved, subscriptions[c.session])
				}
				var before usageReport
				for _, number := range slices.Sorted(maps.Keys(r.arrived[c.session])) {
					report := r.arrived[c.session][number]
					p := page{subscriptions[c.session], report.At.UnixMicro() / control.UsageBucket.Microseconds()}
					want[p] = want[p].Plus(control.Traffic{Up: int64(report.Up - before.Up), Down: int64(report.Down - before.Down)})
					before = report
				}
			}
		}
		for p, moved := range want {
			used, err := tx.UsedBytes(ctx, p.subscription, p.bucket, p.bucket+1)
			if err != nil {
				return err
			}
			if used != moved {
				v.t.Errorf("%+v: %+v, want %+v", p, used, moved)
			}
		}
		return nil
	})
	if err != nil {
		v.t.Error(err)
	}
}
