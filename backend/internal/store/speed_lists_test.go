package store

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkLists compares the time of pages of lists and previews of bulk actions, with
// 100,000 users with that of the same with 1,000: 99th percentiles, both in turn.
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
				b.Run(name, func(b *testing.B) { comparePages(b, services, speedPage{path: path}) })
			}
			for name, body := range speedPreviews {
				b.Run(name, func(b *testing.B) { comparePages(b, services, speedPage{path: "/bulk/preview", body: body}) })
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

// speedPreviews are bulk actions that select the same hundred users, or some of them,
// however many there are.
var speedPreviews = map[string]string{
	"bulk-disable": `{"action":"disable","filter":{"search":"user-0005"}}`,
	"bulk-revoke":  `{"action":"revoke","filter":{"search":"user-0005","disabled":false}}`,
	"bulk-extend":  `{"action":"extend","days":30,"filter":{"search":"user-0005"}}`,
	"bulk-limit":   `{"action":"limit","limits":{"max_devices":9},"filter":{"search":"user-0005"}}`,
}

// speedPage is what is asked for: with a body by POST.
type speedPage struct{ path, body string }

// middle returns the path of a part in the middle of a list.
func (s *speedService) middle(b *testing.B, path string) string {
	b.Helper()
	whole := strings.Replace(path, "limit=50", "limit=500", 1)
	at := whole
	for range max(1, s.world.users/2/500) {
		var page struct {
			Next string `json:"next"`
		}
		if err := json.Unmarshal(s.page(b, speedPage{path: at}), &page); err != nil {
			b.Fatal(err)
		}
		if page.Next == "" {
			break
		}
		at = whole + "&cursor=" + url.QueryEscape(page.Next)
	}
	return strings.Replace(at, "limit=500", "limit=50", 1)
}

func (s *speedService) page(b *testing.B, of speedPage) []byte {
	b.Helper()
	method := http.MethodGet
	if of.body != "" {
		method = http.MethodPost
	}
	req := httptest.NewRequestWithContext(b.Context(), method, s.world.prefix+"/api/v1/admin"+of.path, strings.NewReader(of.body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.world.token)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		b.Fatalf("%s: %d %s", of.path, w.Code, w.Body)
	}
	data, err := io.ReadAll(w.Body)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func comparePages(b *testing.B, services map[int]*speedService, of speedPage) {
	b.Helper()
	times, pages := make(map[int][]float64), make(map[int]speedPage)
	for users, s := range services {
		pages[users] = of
		if strings.HasSuffix(of.path, "limit=50") {
			pages[users] = speedPage{path: s.middle(b, of.path)}
		}
		s.page(b, pages[users])
	}
	b.ResetTimer()
	for range listCalls {
		for users, s := range services {
			began := time.Now()
			s.page(b, pages[users])
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
