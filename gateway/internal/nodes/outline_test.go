package nodes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	poolPassword = "hunter2-hunter2"
	poolServer   = `"server_id":"s1","region":"eu","host":"ss.example","port":8388,"cipher":"aes-256-gcm","password":"` + poolPassword +
		`","prefix":"UE9TVCA","managed":true,"generation":3`
)

var poolWant = OutlineServer{
	ID: "s1", Generation: 3, Host: "ss.example", Port: 8388, Cipher: "aes-256-gcm", Password: poolPassword, Prefix: "POST ", Managed: true,
}

// asked notes requests as path and body, and answers the nth with the nth answer,
// the last again.
type asked struct {
	mu       sync.Mutex
	requests []string
	answers  []string // a status and a body
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.requests = append(a.requests, strings.TrimPrefix(r.URL.Path, "/api/v1/")+" "+string(body))
	answer := a.answers[min(len(a.requests), len(a.answers))-1]
	a.mu.Unlock()
	status, text, _ := strings.Cut(answer, " ")
	var number int
	_, _ = fmt.Sscan(status, &number)
	if number == 0 { // nothing ever comes
		<-r.Context().Done()
		return
	}
	w.WriteHeader(number)
	_, _ = io.WriteString(w, text)
}

func TestASessionsServerIsAskedFor(t *testing.T) {
	const (
		assign = `nodes/assign-outline {"session_id":"01000000000000000000000000000000"}`
		report = `nodes/report-outline-failure {"failure":"reset","server_id":"s0","session_id":"01000000000000000000000000000000"}`
	)
	refused := `403 {"code":"no_outline_nodes_available"}`
	for name, tc := range map[string]struct {
		failed  string
		answers []string
		asks    []string
		want    OutlineExit
		err     string
		took    time.Duration
	}{
		"there is one":         {"", []string{"200 {" + poolServer + "}"}, []string{assign}, OutlineExit{Server: poolWant}, "", 0},
		"there is another one": {"s0", []string{"200 {" + poolServer + "}"}, []string{report}, OutlineExit{Server: poolWant}, "", 0},
		"there is no other": {
			"s1",
			[]string{"200 {" + poolServer + `,"retry_after_ms":30000}`},
			[]string{strings.Replace(report, "s0", "s1", 1)},
			OutlineExit{poolWant, 30 * time.Second},
			"", 0,
		},
		"later than ever":             {"", []string{"200 {" + poolServer + `,"retry_after_ms":99999999999}`}, []string{assign}, OutlineExit{poolWant, time.Minute}, "", 0},
		"there is none":               {"", []string{refused}, []string{assign}, OutlineExit{}, ErrNoOutline.Error(), 0},
		"the session has ended":       {"", []string{`403 {"code":"session_unknown"}`}, []string{assign}, OutlineExit{}, "session_unknown", 0},
		"it can say so after a while": {"", []string{`503 {"code":"unavailable"}`, "200 {" + poolServer + "}"}, []string{assign, assign}, OutlineExit{Server: poolWant}, "", outlinePause},
		"it cannot say":               {"s0", []string{`503 {"code":"unavailable"}`}, []string{report, report}, OutlineExit{}, "unavailable", outlinePause},
		"it says nothing":             {"", []string{"0"}, []string{assign, assign}, OutlineExit{}, "deadline", outlinePause + 2*outlineTimeout},
		"a port that is none":         {"", []string{"200 {" + strings.Replace(poolServer, "8388", "70000", 1) + "}"}, []string{assign, assign}, OutlineExit{}, "is none", outlinePause},
		"a prefix that is none":       {"", []string{"200 {" + strings.Replace(poolServer, "UE9TVCA", "UE9TVCA=", 1) + "}"}, []string{assign, assign}, OutlineExit{}, "is none", outlinePause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asked{answers: tc.answers}
				n := newLocal(t, a.ServeHTTP).n
				began := time.Now()
				var (
					got OutlineExit
					err error
				)
				if tc.failed == "" {
					got, err = n.AssignOutline(t.Context(), [16]byte{1})
				} else {
					got, err = n.ReportOutline(t.Context(), [16]byte{1}, tc.failed, OutlineReset)
				}
				if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				if err == nil && got != tc.want {
					t.Errorf("another server than was told: %v, retry after %v", got.Server, got.RetryAfter)
				}
				if errors.Is(err, ErrNoOutline) != (tc.err == ErrNoOutline.Error()) {
					t.Errorf("error %v", err)
				}
				if text := fmt.Sprintf("%v %+v %#v", err, got, got); strings.Contains(text, poolPassword) || strings.Contains(text, "ss.example") {
					t.Errorf("printed as %s", text)
				}
				if took := time.Since(began); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				synctest.Wait()
				a.mu.Lock()
				defer a.mu.Unlock()
				if diff := cmp.Diff(tc.asks, a.requests); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWhatProbesSawIsToldAndWhatToProbeIsLearned(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		want   OutlineWatch
		err    string
	}{
		"a server":            {`200 {"interval_ms":15000,"servers":[{` + poolServer + `}]}`, OutlineWatch{15 * time.Second, []OutlineServer{poolWant}}, ""},
		"none, and no word":   {`200 {}`, OutlineWatch{Interval: 15 * time.Second}, ""},
		"all the time":        {`200 {"interval_ms":1}`, OutlineWatch{Interval: time.Second}, ""},
		"never":               {`200 {"interval_ms":99999999999999}`, OutlineWatch{Interval: 10 * time.Minute}, ""},
		"a server without id": {`200 {"servers":[{` + strings.Replace(poolServer, "s1", "", 1) + `}]}`, OutlineWatch{}, "is none"},
		"a refusal":           {`401 {"code":"invalid_token"}`, OutlineWatch{}, "invalid_token"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asked{answers: []string{tc.answer}}
				n := newLocal(t, a.ServeHTTP).n
				seen := []OutlineSeen{{ID: "s1", Took: 42 * time.Millisecond}, {ID: "s2", Failure: OutlineTimeout}}
				got, err := n.BeatOutline(t.Context(), seen)
				if (err == nil) != (tc.err == "") || err != nil && (!strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), poolPassword)) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				if got.Interval != tc.want.Interval || !cmp.Equal(got.Servers, tc.want.Servers) {
					t.Errorf("watch %v, want %v", got, tc.want)
				}
				want := `outline/heartbeat {"results":[{"server_id":"s1","latency_ms":42},{"server_id":"s2","failure":"timeout","latency_ms":0}]}`
				a.mu.Lock()
				defer a.mu.Unlock()
				if diff := cmp.Diff([]string{want}, a.requests); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
	many := make([]OutlineSeen, MaxOutlineSeen+1)
	synctest.Test(t, func(t *testing.T) {
		n := newLocal(t, func(w http.ResponseWriter, r *http.Request) {
			var body struct{ Results []any }
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Results) != MaxOutlineSeen {
				t.Errorf("%d results, %v", len(body.Results), err)
			}
			_, _ = io.WriteString(w, "{}")
		}).n
		if _, err := n.BeatOutline(t.Context(), many); err != nil {
			t.Error(err)
		}
	})
}
