package webhooks_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/backend/internal/webhooks"
	"github.com/httvps/httvps/internal/inproc"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// service is the domain over a real store.
type service struct {
	*control.Authority
	t *testing.T
}

func open(t *testing.T, dir string, where store.Config, posted func()) *service {
	t.Helper()
	records, err := store.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := records.Close(); err != nil {
			t.Error(err)
		}
	})
	keys, err := seal.Open(seal.Source{File: filepath.Join(dir, "kek"), Make: true})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := control.Open(t.Context(), control.Options{
		Store: records, Sealer: keys, Passwords: password.New(password.Cost{Passes: 1, Memory: 8}), Now: time.Now, PublicURL: "https://vpn.example.net",
		Heartbeat: 5 * time.Second, KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour, Posted: posted,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &service{authority, t}
}

func (s *service) hook(url string) control.NewWebhook {
	s.t.Helper()
	made, _, err := s.CreateWebhook(s.t.Context(), control.WebhookFields{URL: &url}, control.Once{})
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

func (s *service) user(name string) control.User {
	s.t.Helper()
	user, _, err := s.CreateUser(s.t.Context(), control.UserFields{Name: &name}, control.Once{})
	if err != nil {
		s.t.Fatal(err)
	}
	return user
}

func (s *service) set(user control.User, disabled bool) {
	s.t.Helper()
	if _, err := s.UpdateUser(s.t.Context(), user.ID, control.UserFields{Disabled: &disabled}); err != nil {
		s.t.Fatal(err)
	}
}

// message is what a receiver got.
type message struct {
	at   time.Time
	id   string
	what string // type and name of the user
}

// receiver takes messages whose signature it has verified, by itself.
type receiver struct {
	t      *testing.T
	key    []byte
	answer func(message) int

	mu  sync.Mutex // guards the following field
	got []message
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // it was broken off
	}
	id, stamp := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(id + "." + stamp + "." + string(body)))
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if !slices.Contains(strings.Split(req.Header.Get("webhook-signature"), " "), want) {
		r.t.Errorf("the signature is %q, want %s", req.Header.Get("webhook-signature"), want)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if off := time.Since(time.Unix(seconds, 0)); err != nil || off < -time.Second || off > time.Minute {
		r.t.Errorf("sent at %q, which is %v off", stamp, off)
	}
	var said struct {
		Type string
		Data struct{ User struct{ Name string } }
	}
	if err := json.Unmarshal(body, &said); err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %s: %v", req.Method, body, err)
	}
	m := message{time.Now(), id, strings.TrimSpace(said.Type + " " + said.Data.User.Name)}
	r.mu.Lock()
	r.got = append(r.got, m)
	r.mu.Unlock()
	w.WriteHeader(r.answer(m))
}

func (r *receiver) messages() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func keyOf(t *testing.T, secret string) []byte {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// tally counts results of attempts.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *tally) WebhookAttempt(result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]int)
	}
	c.counts[result]++
}

// serve answers on connections in memory until the test ends, and returns how to dial.
func serve(t *testing.T, handler http.Handler) webhooks.Dial {
	t.Helper()
	l := inproc.New()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // until it is closed
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }
}

// run runs a sender until the returned function is called.
func run(t *testing.T, sender *webhooks.Sender) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sender.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A receiver that takes nothing about one user gets that message again and again for
// about a day, and everything about the others at once. What comes later about that user
// waits until the first is given up, and goes then in its order.
func TestMessagesAreRepeatedForADayAndKeepTheirOrderForEachObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := &receiver{t: t, answer: func(m message) int {
			if m.what == "user.created bob" {
				return http.StatusInternalServerError
			}
			return http.StatusNoContent
		}}
		var sender *webhooks.Sender
		s := open(t, dir, store.Config{Path: filepath.Join(dir, "x.db")}, func() {
			if sender != nil {
				sender.Wake()
			}
		})
		hook := s.hook("http://receiver.example/planted")
		r.key = keyOf(t, hook.Secret)
		counted := &tally{}
		sender = webhooks.New(s, webhooks.NewClient(serve(t, r), nil), counted, quiet())
		defer run(t, sender)()

		began := time.Now()
		bob, ann := s.user("bob"), s.user("ann")
		for _, user := range []control.User{bob, ann} {
			s.set(user, true)
			s.set(user, false)
		}
		<-time.After(time.Second)
		var anns []string
		for _, m := range r.messages() {
			if strings.HasSuffix(m.what, "ann") {
				anns = append(anns, m.what)
			}
		}
		if diff := cmp.Diff([]string{"user.created ann", "user.disabled ann", "user.enabled ann"}, anns); diff != "" {
			t.Errorf("about who is well: %s", diff)
		}
		<-time.After(30 * time.Hour)
		var bobs []string
		ids := make(map[string]bool)
		var last time.Time
		pause := time.Duration(0)
		for _, m := range r.messages() {
			if !strings.HasSuffix(m.what, "bob") {
				continue
			}
			bobs = append(bobs, m.what)
			ids[m.id] = true
			if m.what == "user.created bob" {
				if !last.IsZero() {
					if next := m.at.Sub(last); next < pause*5/4 && next < 7*time.Hour {
						t.Errorf("the next attempt is after %v, the one before was after %v", next, pause)
					} else {
						pause = next
					}
				}
				last = m.at
			}
		}
		want := append(slices.Repeat([]string{"user.created bob"}, control.MaxDeliveryAttempts), "user.disabled bob", "user.enabled bob")
		if diff := cmp.Diff(want, bobs); diff != "" {
			t.Errorf("about who is not: %s", diff)
		}
		if took := last.Sub(began); took < 20*time.Hour || took > 28*time.Hour || len(ids) != 3 {
			t.Errorf("tried for %v, with %d ids", took, len(ids))
		}
		if diff := cmp.Diff(map[string]int{"delivered": 5, "failed": control.MaxDeliveryAttempts - 1, "dead": 1}, counted.counts); diff != "" {
			t.Errorf("counted: %s", diff)
		}
	})
}

// A receiver that never answers costs an attempt its time and no other webhook anything;
// when the service stops, what is under way is broken off and comes again.
func TestAReceiverThatHangsKeepsNobodyElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, store.Config{Path: filepath.Join(dir, "x.db")}, nil)
		well := &receiver{t: t, answer: func(message) int { return http.StatusOK }}
		wellDial := serve(t, well)
		hanging := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // so that its end is noticed
			<-r.Context().Done()
		}))
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "hangs") {
				return hanging(ctx, network, address)
			}
			return wellDial(ctx, network, address)
		}
		slow := s.hook("http://hangs.example/")
		well.key = keyOf(t, s.hook("http://well.example/").Secret)
		for n := range 20 {
			s.user(fmt.Sprint("user ", n))
		}
		sender := webhooks.New(s, webhooks.NewClient(dial, nil), &tally{}, quiet())
		stop := run(t, sender)
		<-time.After(time.Second)
		if n := len(well.messages()); n != 20 {
			t.Errorf("%d of 20 messages have come to who is well", n)
		}
		tried := func() (attempts int, failures map[control.DeliveryFailure]int) {
			failures = make(map[control.DeliveryFailure]int)
			list, err := s.Deliveries(t.Context(), slow.ID, "", control.Page{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range list {
				attempts += d.Attempts
				failures[d.Failure]++
			}
			return attempts, failures
		}
		if n, _ := tried(); n != 4 {
			t.Errorf("%d attempts are under way to who hangs, want 4", n)
		}
		<-time.After(15 * time.Second)
		if n, failures := tried(); n != 8 || failures[control.DeliveryTimeout] != 4 {
			t.Errorf("after the time of an attempt: %d attempts, %v", n, failures)
		}
		before := time.Now()
		stop()
		if took := time.Since(before); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
		n, _ := tried()
		<-time.After(control.DeliveryLease)
		defer run(t, webhooks.New(s, webhooks.NewClient(dial, nil), &tally{}, quiet()))()
		<-time.After(time.Second)
		if again, _ := tried(); again <= n {
			t.Error("what was broken off is not tried again")
		}
	})
}

// Several processes send from one database, and the receiver fails now and then: each
// message comes, and those about a user in their order.
func TestSeveralSendersOnPostgreSQLKeepTheOrder(t *testing.T) {
	dir, where := t.TempDir(), store.Config{URL: storetest.Database(t)}
	if _, err := store.Migrate(t.Context(), where); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, where, nil)
	hook := s.hook("http://receiver.example/")
	taken := make(chan struct{}, 1000)
	r := &receiver{t: t, key: keyOf(t, hook.Secret), answer: func(message) int { taken <- struct{}{}; return http.StatusOK }}
	dial := serve(t, r)
	const users, changes = 6, 8
	for n := range users {
		user := s.user(fmt.Sprint("user", n))
		for i := range changes {
			s.set(user, i%2 == 0)
		}
	}
	for range 3 {
		other := open(t, dir, where, nil)
		sender := webhooks.New(other, webhooks.NewClient(dial, nil), &tally{}, quiet())
		t.Cleanup(run(t, sender))
	}
	for n := range users * (changes + 1) {
		select {
		case <-taken:
		case <-time.After(time.Minute):
			t.Fatalf("only %d messages have come", n)
		}
	}
	got := make(map[string][]string)
	ids := make(map[string]bool)
	for _, m := range r.messages() {
		what, user, _ := strings.Cut(m.what, " ")
		got[user] = append(got[user], what)
		ids[m.id] = true
	}
	want := []string{"user.created"}
	for i := range changes {
		want = append(want, []string{"user.disabled", "user.enabled"}[i%2])
	}
	for user, list := range got {
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("about %s: %s", user, diff)
		}
	}
	if len(ids) != users*(changes+1) {
		t.Errorf("%d different messages", len(ids))
	}
}
