package httpapi_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

func onBothEngines(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, openOn(t, store.Config{Path: filepath.Join(t.TempDir(), "x.db")})) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

// answer is an answer as JSON that no program has read yet.
func (f *fixture) answer(t *testing.T, status int, method, path, body string, header ...string) map[string]json.RawMessage {
	t.Helper()
	w := f.do(t.Context(), method, "/api/v1/admin"+path, body, header...)
	if w.Code != status {
		t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, w.Code, w.Body, status)
	}
	var object map[string]json.RawMessage
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil {
			t.Fatalf("%v in %s", err, w.Body)
		}
	}
	return object
}

// compact is JSON without spaces.
func compact(t *testing.T, text json.RawMessage) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	said, err := json.Marshal(v) // with its members from A to Z
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

func TestWhatIsAbsentStaysAndWhatIsNullIsThePlansOnBothEngines(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fixture) {
		t.Helper()
		const none = `{"max_devices":null,"max_sessions":null,"max_streams":null,"max_udp":null,"quota_bytes":null,"quota_period":null,"regions":null,"speed_down_bps":null,"speed_up_bps":null}`
		user := f.answer(t, http.StatusCreated, http.MethodPost, "/users", `{"name":"ann","limits":{"max_devices":7,"max_udp":0}}`, "Idempotency-Key", "a")
		var id string
		if err := json.Unmarshal(user["id"], &id); err != nil {
			t.Fatal(err)
		}
		again := f.answer(t, http.StatusCreated, http.MethodPost, "/users", `{"name":"ann","limits":{"max_devices":7,"max_udp":0}}`, "Idempotency-Key", "a")
		if string(again["id"]) != string(user["id"]) {
			t.Error("the same request with the same key makes another user")
		}
		f.answer(t, http.StatusConflict, http.MethodPost, "/users", `{"name":"ann","limits":{"max_devices":8}}`, "Idempotency-Key", "a")
		for _, step := range []struct{ body, want string }{
			{`{}`, strings.NewReplacer(`"max_devices":null`, `"max_devices":7`, `"max_udp":null`, `"max_udp":0`).Replace(none)},
			{`{"max_devices":null}`, strings.Replace(none, `"max_udp":null`, `"max_udp":0`, 1)},
			{
				`{"max_udp":null,"quota_bytes":0,"quota_period":"day","regions":[],"speed_up_bps":8000}`,
				strings.NewReplacer(`"quota_bytes":null`, `"quota_bytes":0`, `"quota_period":null`, `"quota_period":"day"`, `"regions":null`, `"regions":[]`, `"speed_up_bps":null`, `"speed_up_bps":8000`).Replace(none),
			},
			{`{"regions":["local"],"quota_period":null,"quota_bytes":null}`, strings.NewReplacer(`"regions":null`, `"regions":["local"]`, `"speed_up_bps":null`, `"speed_up_bps":8000`).Replace(none)},
			{`{"regions":null,"speed_up_bps":null}`, none},
		} {
			changed := f.answer(t, http.StatusOK, http.MethodPatch, "/users/"+id+"/limits", step.body)
			shown := f.answer(t, http.StatusOK, http.MethodGet, "/users/"+id, "")
			for _, object := range []map[string]json.RawMessage{changed, shown} {
				if diff := cmp.Diff(step.want, compact(t, object["limits"])); diff != "" {
					t.Errorf("after %s (-want +got):\n%s", step.body, diff)
				}
			}
		}
		list := f.answer(t, http.StatusOK, http.MethodGet, "/users?name=ann", "")
		if !strings.Contains(string(list["items"]), `"limits":`) {
			t.Errorf("a list shows none: %s", list["items"])
		}
	})
}

func TestAMistakeInLimitsIsNamedAndChangesNothing(t *testing.T) {
	f := open(t)
	f.furnish(t)
	path := "/users/" + f.there["users"] + "/limits"
	for body, field := range map[string]string{
		`{"max_devices":0}`: "body.max_devices", `{"max_devices":"many"}`: "body.max_devices", `{"max_sessions":1.5}`: "body.max_sessions", `{"speed_up_bps":5}`: "speed_up_bps",
		`{"quota_bytes":1}`: "quota_bytes", `{"quota_period":"year"}`: "quota_period", `{"regions":["mars"]}`: "regions", `{"regions":"eu"}`: "body.regions", `{"note":"x"}`: "body",
		`{"throttle_bps":8000}`: "body",
	} {
		w := f.do(t.Context(), http.MethodPatch, "/api/v1/admin"+path, body)
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), field) {
			t.Errorf("%s: %d %s, want a complaint about %s", body, w.Code, w.Body, field)
		}
	}
	if shown := f.answer(t, http.StatusOK, http.MethodGet, "/users/"+f.there["users"], ""); strings.Trim(compact(t, shown["limits"]), `{}_":,abcdefghijklmnopqrstuvwxyz`) != "" {
		t.Errorf("the user has %s", shown["limits"])
	}
	f.answer(t, http.StatusNotFound, http.MethodPatch, "/users/00000000-0000-7000-8000-000000000000/limits", `{"max_devices":1}`)
}

func TestWhyAndTrafficTellOfLimitsAndSpeedsOverHTTP(t *testing.T) {
	f := open(t)
	f.furnish(t)
	f.answer(t, http.StatusOK, http.MethodPatch, "/users/"+f.there["users"]+"/limits", `{"quota_bytes":2097152}`)
	var limits []map[string]string
	if err := json.Unmarshal(f.answer(t, http.StatusOK, http.MethodGet, "/users/"+f.there["users"]+"/why", "")["limits"], &limits); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(limits, func(l map[string]string) bool { return l["name"] == "quota_bytes" })
	if at < 0 || !cmp.Equal(limits[at], map[string]string{"name": "quota_bytes", "value": "2097152", "source": "user", "plan": "1048576"}) {
		t.Errorf("why has %v", limits)
	}
	report := `{"reports":[{"boot_id":"b","session_id":"` + strings.Repeat("a", 32) + `","sequence":1,"up":5,"down":6000,"at":"2026-03-01T00:00:00Z"}]}`
	if w := f.do(t.Context(), http.MethodPost, "/api/v1/usage/report", report); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := f.do(t.Context(), http.MethodPost, "/api/v1/gateway/heartbeat", `{"boot_id":"b","version":"1","sessions":1,"streams":0}`); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var moving []struct {
		ID         string  `json:"id"`
		Up         int64   `json:"up"`
		Down       int64   `json:"down"`
		DownBPS    int64   `json:"down_bps"`
		ReportedAt *string `json:"reported_at"`
	}
	look := func(query string) int {
		t.Helper()
		if err := json.Unmarshal(f.answer(t, http.StatusOK, http.MethodGet, "/traffic"+query, "")["items"], &moving); err != nil {
			t.Fatal(err)
		}
		return len(moving)
	}
	if look("") != 1 || moving[0].ID != strings.Repeat("a", 32) || moving[0].Up != 5 || moving[0].Down != 6000 || moving[0].DownBPS < 1 || moving[0].DownBPS > 48_000 || moving[0].ReportedAt == nil {
		t.Errorf("traffic is %+v", moving)
	}
	if n := look("?user_id=" + f.there["plans"]); n != 0 {
		t.Errorf("of nobody there are %d", n)
	}
	if n := look("?gateway_id=" + f.gatewayID); n != 1 {
		t.Errorf("of its gateway there are %d", n)
	}
}

func TestAUsageSeriesIsWholeAndItsMistakesAreNamed(t *testing.T) {
	f := open(t)
	f.furnish(t)
	report := `{"reports":[{"boot_id":"b","session_id":"` + strings.Repeat("a", 32) + `","sequence":1,"up":5,"down":6,"at":"2026-03-28T23:30:00Z"},
		{"boot_id":"b","session_id":"` + strings.Repeat("a", 32) + `","sequence":2,"up":7,"down":9,"at":"2026-03-29T12:00:00Z"}]}`
	if w := f.do(t.Context(), http.MethodPost, "/api/v1/usage/report", report); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	// The day on which clocks in Berlin are put forward has 23 hours, and began at 23:00 UTC.
	const span = "&time_zone=Europe/Berlin&from=2026-03-28T12:00:00Z&to=2026-03-29T22:00:00Z"
	series := f.answer(t, http.StatusOK, http.MethodGet, "/usage/series?by=day"+span, "")
	want := `[{"begins_at":"2026-03-28T00:00:00+01:00","down":0,"ends_at":"2026-03-29T00:00:00+01:00","up":0},` +
		`{"begins_at":"2026-03-29T00:00:00+01:00","down":9,"ends_at":"2026-03-30T00:00:00+02:00","up":7}]`
	if diff := cmp.Diff(want, compact(t, series["items"])); diff != "" {
		t.Errorf("days (-want +got):\n%s", diff)
	}
	if got := compact(t, series["total"]); got != `{"down":9,"up":7}` || string(series["by"]) != `"day"` || string(series["time_zone"]) != `"Europe/Berlin"` {
		t.Errorf("in all %s by %s in %s", got, series["by"], series["time_zone"])
	}
	count := func(query string) int {
		t.Helper()
		var items []json.RawMessage
		if err := json.Unmarshal(f.answer(t, http.StatusOK, http.MethodGet, "/usage/series"+query, "")["items"], &items); err != nil {
			t.Fatal(err)
		}
		return len(items)
	}
	if n := count(""); n != 30 {
		t.Errorf("%d points when nothing is said, want 30", n)
	}
	if n := count("?by=hour" + span); n != 34 {
		t.Errorf("%d hours, want 34", n)
	}
	for _, owner := range []string{"user_id=" + f.there["users"], "gateway_id=" + f.gatewayID, "plan_id=" + f.there["plans"]} {
		f.answer(t, http.StatusOK, http.MethodGet, "/usage/series?by=week&"+owner, "")
	}
	for query, part := range map[string]string{
		"?by=year": "query.by", "?time_zone=Mars/Olympus": "time_zone", "?by=hour&from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z": "400",
		"?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z": "from", "?from=yesterday": "query.from", "?user_id=x": "query.user_id",
		"?user_id=" + f.there["users"] + "&plan_id=" + f.there["plans"]: "query.plan_id",
	} {
		w := f.do(t.Context(), http.MethodGet, "/api/v1/admin/usage/series"+query, "")
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), part) {
			t.Errorf("%s: %d %s, want a complaint with %q", query, w.Code, w.Body, part)
		}
	}
}
