package httpapi_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/httpapi"
)

// block reads from a stream until a block of lines has ended.
func block(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var text strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended in %q: %v", text.String(), err)
		}
		if line == "\n" {
			return text.String()
		}
		text.WriteString(line)
	}
}

// follow opens a stream over HTTP and returns the header of the answer, too.
func (f *fixture) follow(t *testing.T, query string, header ...string) (http.Header, *bufio.Reader) {
	t.Helper()
	server := httptest.NewServer(f.handler)
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+f.prefix+"/api/v1/gateway/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.assertion)
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the answer is %s", resp.Status)
	}
	return resp.Header, bufio.NewReader(resp.Body)
}

// page polls, and fails the test unless that gives a page.
func (f *fixture) page(t *testing.T, query string) (p httpapi.EventPage) {
	t.Helper()
	w := f.do(t.Context(), http.MethodGet, "/api/v1/gateway/events"+query, "")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("poll%s is %d %s", query, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// change makes an event for all gateways.
func (f *fixture) change(t *testing.T, streams string) {
	t.Helper()
	var plans struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := json.Unmarshal(f.do(t.Context(), http.MethodGet, "/api/v1/admin/plans", "").Body.Bytes(), &plans); err != nil {
		t.Fatal(err)
	}
	w := f.do(t.Context(), http.MethodPatch, "/api/v1/admin/plans/"+plans.Items[0].ID, `{"max_streams":`+streams+`}`)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestAPollBringsWhatIsNew(t *testing.T) {
	f := open(t)
	begin := f.page(t, "")
	if !begin.SnapshotNeeded || len(begin.Events) != 0 || begin.Version == 0 {
		t.Errorf("without a version: %+v, want to need a snapshot", begin)
	}
	f.change(t, "7")
	after := f.page(t, "?after=0")
	last := after.Events[len(after.Events)-1]
	if after.SnapshotNeeded || after.More || last.Kind != "plan.changed" || last.PlanID == "" || last.Version != after.Version {
		t.Errorf("after 0: %+v, want the plan's change at last", after)
	}
	if again := f.page(t, "?after="+jsonText(t, after.Version)); len(again.Events) != 0 || again.SnapshotNeeded || again.Version != after.Version {
		t.Errorf("after all: %+v, want nothing", again)
	}
	if future := f.page(t, "?after=999999"); !future.SnapshotNeeded {
		t.Errorf("from the future: %+v, want to need a snapshot", future)
	}
	for _, e := range after.Events {
		if e.Kind == "subscription.changed" {
			t.Error("the gateway is told about a user whom it does not know")
		}
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAStreamBringsEventsAndIsResumed(t *testing.T) {
	f := open(t)
	header, r := f.follow(t, "")
	if header.Get("Content-Type") != "text/event-stream" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("the answer has %v", header)
	}
	version := jsonText(t, f.page(t, "").Version)
	if got, want := block(t, r), "retry: 1000\nid: "+version+"\nevent: snapshot_needed\ndata: {\"version\":"+version+"}\n"; got != want {
		t.Errorf("the stream begins with %q, want %q", got, want)
	}
	f.change(t, "7") // found by the next poll: nobody tells the hub of this fixture
	got := block(t, r)
	for _, want := range []string{"event: plan.changed\n", "data: {\"version\":", `"plan_id":"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the event is %q, want %q in it", got, want)
		}
	}
	_, again := f.follow(t, "?after=999999", "Last-Event-ID", version) // which counts
	if first := block(t, again); !strings.Contains(first, strings.TrimSpace(got[strings.Index(got, "event:"):])) {
		t.Errorf("the resumed stream begins with %q, want %q", first, got)
	}
}

func TestAVersionThatIsNoneIsRefusedOrNeedsASnapshot(t *testing.T) {
	f := open(t)
	for query, want := range map[string]int{"?after=x": 422, "?after=-2": 422, "?after=9223372036854775807": 200, "?before=1": 422} {
		if w := f.do(t.Context(), http.MethodGet, "/api/v1/gateway/events"+query, ""); w.Code != want {
			t.Errorf("%s is %d %s, want %d", query, w.Code, w.Body, want)
		}
	}
	_, r := f.follow(t, "", "Last-Event-ID", "9999999999999999999") // beyond 64 bits
	if got := block(t, r); !strings.Contains(got, "snapshot_needed") {
		t.Errorf("the stream begins with %q", got)
	}
}

func TestEventsAreForGatewaysOnly(t *testing.T) {
	f := open(t)
	for _, path := range []string{"/api/v1/gateway/events", "/api/v1/gateway/snapshot"} {
		for _, credential := range []string{"", "Bearer " + f.token, "Bearer " + f.assertion + "x"} {
			w := f.do(t.Context(), http.MethodGet, path, "", "Authorization", credential, "Accept", "text/event-stream")
			if w.Code != http.StatusUnauthorized {
				t.Errorf("%s with %.12q is %d", path, credential, w.Code)
			}
		}
	}
}

func TestASnapshotIsShown(t *testing.T) {
	f := open(t)
	w := f.do(t.Context(), http.MethodGet, "/api/v1/gateway/snapshot", "")
	var got httpapi.Snapshot
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got.Version != f.page(t, "").Version || got.Close == nil || got.Keys.JWKS == "" || got.Keys.Knock == "" {
		t.Errorf("snapshot is %+v", got)
	}
	var config httpapi.GatewayConfig
	if err := json.Unmarshal(f.do(t.Context(), http.MethodGet, "/api/v1/gateway/config", "").Body.Bytes(), &config); err != nil {
		t.Fatal(err)
	}
	if config.Keys != got.Keys {
		t.Errorf("the configuration has keys %+v, the snapshot %+v", config.Keys, got.Keys)
	}
}
