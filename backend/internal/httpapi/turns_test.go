package httpapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// unobserved takes no note of requests, and nothing else is asked of it.
type unobserved struct{ Observer }

func (unobserved) Request(string, int, time.Duration) {}

// crossing has an operation for devices and one for gateways, both of which work until
// they are let go.
type crossing struct {
	router  http.Handler
	release chan struct{}

	mu sync.Mutex // guards the following field
	at map[string][]string
}

func newCrossing(log slog.Handler) *crossing {
	s := &server{log: slog.New(log), observer: unobserved{}, devices: make(turns, devicesAtOnce)}
	c := &crossing{release: make(chan struct{}), at: make(map[string][]string)}
	r := s.router()
	type said struct {
		Body struct {
			Who string `json:"who"`
		}
	}
	for _, who := range []string{"device", "gateway"} {
		register(s, r.api, huma.Operation{OperationID: who, Method: http.MethodPost, Path: "/" + who, Tags: []string{who}},
			func(ctx context.Context, in *said) (*struct{}, error) {
				c.mu.Lock()
				c.at[who] = append(c.at[who], in.Body.Who)
				c.mu.Unlock()
				select {
				case <-c.release:
					return nil, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
	}
	c.router = s.wrap(r.router)
	return c
}

func (c *crossing) ask(who string, body io.Reader) int {
	return c.askUntil(context.Background(), who, body)
}

func (c *crossing) askUntil(ctx context.Context, who string, body io.Reader) int {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+who, body)
	r.Header.Set("Content-Type", "application/json")
	c.router.ServeHTTP(w, r)
	return w.Code
}

func (c *crossing) atWork(who string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at[who])
}

func TestDevicesWaitForEachOtherAndGatewaysForNoDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrossing(slog.DiscardHandler)
		var running sync.WaitGroup
		defer running.Wait()
		defer close(c.release)
		// Who is slow to say what he wants keeps nobody waiting.
		for range 2 * devicesAtOnce {
			body, slow := io.Pipe()
			defer slow.Close()
			running.Go(func() { c.ask("device", body) })
		}
		synctest.Wait()
		names := strings.Split("abcdefghijkl", "")
		for _, name := range names {
			running.Go(func() { c.ask("device", strings.NewReader(`{"who":"`+name+`"}`)) })
			synctest.Wait()
		}
		if got := c.atWork("device"); !slices.Equal(got, names[:devicesAtOnce]) {
			t.Fatalf("at work are %v, want the first %d", got, devicesAtOnce)
		}
		for range 4 * devicesAtOnce {
			running.Go(func() { c.ask("gateway", strings.NewReader(`{"who":"g"}`)) })
		}
		synctest.Wait()
		if got := len(c.atWork("gateway")); got != 4*devicesAtOnce {
			t.Errorf("%d of %d questions of gateways are at work", got, 4*devicesAtOnce)
		}
		for len(c.atWork("device")) < len(names) {
			before := len(c.atWork("device"))
			c.release <- struct{}{} // whoever that is
			synctest.Wait()
			if got := c.atWork("device"); len(got) > before && !slices.Equal(got, names[:before+1]) {
				t.Fatalf("in came %v, want those who waited longest", got)
			}
		}
	})
}

func TestADeviceDoesNotWaitForeverForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrossing(slog.DiscardHandler)
		var running sync.WaitGroup
		codes := make(chan int, devicesAtOnce+1)
		began := time.Now()
		for range cap(codes) {
			running.Go(func() { codes <- c.ask("device", strings.NewReader(`{"who":"d"}`)) })
		}
		running.Wait()
		if took := time.Since(began); took != requestTimeout {
			t.Errorf("answered after %v, want %v", took, requestTimeout)
		}
		for range cap(codes) {
			if code := <-codes; code != http.StatusServiceUnavailable {
				t.Errorf("status %d, want 503", code)
			}
		}
		go close(c.release)
		if code := c.ask("device", strings.NewReader(`{"who":"d"}`)); code != http.StatusNoContent {
			t.Errorf("status %d for the next one, want 204: a place was not given back", code)
		}
	})
}

func TestAClientThatDoesNotWaitIsNoFaultOfTheService(t *testing.T) {
	for name, tc := range map[string]struct {
		patience time.Duration
		want     string // level in the log
	}{
		"it goes":                 {time.Second, "DEBUG"},
		"the service is too slow": {time.Hour, "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				c := newCrossing(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				ctx, cancel := context.WithTimeout(t.Context(), tc.patience)
				defer cancel()
				if code := c.askUntil(ctx, "gateway", strings.NewReader(`{"who":"g"}`)); code != http.StatusServiceUnavailable {
					t.Errorf("status %d, want 503", code)
				}
				if want := "level=" + tc.want + ` msg="request failed"`; !strings.Contains(log.String(), want) {
					t.Errorf("want %s in the log:\n%s", want, log.String())
				}
			})
		})
	}
}
