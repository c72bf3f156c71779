package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hook is a receiver of messages, as an operator's own program is one: it knows the
// secret and the document of Standard Webhooks, and nothing of the service's code.
type hook struct {
	t       *testing.T
	address string
	tls     *tls.Config

	mu     sync.Mutex // guards the following fields
	secret string
	answer func(id, what string) int
	got    []hooked // that were answered with 2xx
	asked  int
	server *http.Server
}

// hooked is a message that was taken.
type hooked struct {
	id, kind, name string
	signatures     int
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id, stamp := r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp")
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.secret, "whsec_"))
	if err != nil {
		h.t.Errorf("the secret: %v", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + string(body)))
	signatures := strings.Split(r.Header.Get("Webhook-Signature"), " ")
	genuine := slices.ContainsFunc(signatures, func(s string) bool {
		return hmac.Equal([]byte(s), []byte("v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))))
	})
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if fresh := time.Since(time.Unix(seconds, 0)).Abs() < 5*time.Minute; !genuine || err != nil || !fresh {
		h.t.Errorf("a message that is not genuine: %v, %s", r.Header, body)
	}
	var said struct {
		Type string                    `json:"type"`
		Data map[string]map[string]any `json:"data"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		h.t.Errorf("%s: %v", body, err)
	}
	m := hooked{id: id, kind: said.Type, signatures: len(signatures)}
	for _, about := range []string{"device", "gateway", "user"} {
		if name, ok := said.Data[about]["name"].(string); ok && m.name == "" {
			m.name = name
		}
	}
	h.asked++
	status := h.answer(id, m.kind+" "+m.name)
	if status/100 == 2 {
		h.got = append(h.got, m)
	}
	w.WriteHeader(status)
}

// open lets the receiver answer, with a certificate of the service's authority.
func (h *hook) open() {
	h.t.Helper()
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	server := h.server
	go func() { _ = server.Serve(tls.NewListener(l, h.tls)) }()
	h.t.Cleanup(func() { _ = server.Close() })
}

// with does something while nothing comes in.
func (h *hook) with(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
}

// about returns the types of the messages about a name in their order, each id once.
func (h *hook) about(name string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[string]bool)
	kinds := []string{}
	for _, m := range h.got {
		if m.name == name && !seen[m.id] {
			seen[m.id] = true
			kinds = append(kinds, m.kind)
		}
	}
	return kinds
}

// The shipped programs, and a receiver of the operator's: at first what leads to this
// machine is refused; then the receiver fails, is away, and comes back; the service is
// killed with messages that wait; a gateway goes and comes; what was given up is sent
// again. Each message comes, genuine and in the order of what happened to its object.
func TestAnOperatorsProgramIsToldWhatHappens(t *testing.T) {
	r := startRegion(t, []string{"one"}, "1s", "")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(r.dir, "cert.pem"), filepath.Join(r.dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{t: t, address: freePort(t), tls: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}}
	_, port, _ := net.SplitHostPort(h.address)
	refused := run(t, "", r.env, "httvpsctl", "webhook", "create", "--url", "https://"+h.address+"/planted-path")
	if refused.code != 1 || !strings.Contains(refused.stderr, "webhooks.allow") || strings.Contains(refused.stderr, "planted-path") {
		t.Errorf("an address of this machine: %d %s", refused.code, refused.stderr)
	}
	var made struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	r.ctl(&made, "webhook", "create", "--url", "https://localhost:"+port+"/planted-path", "--description", "bills")
	h.secret = made.Secret
	first := make(map[string]bool) // ids that came once
	h.answer = func(id, _ string) int {
		if first[id] {
			return http.StatusNoContent
		}
		first[id] = true
		return http.StatusBadGateway
	}
	h.open()
	if got := run(t, "", r.env, "httvpsctl", "webhook", "test", made.ID); got.code != 1 || !strings.Contains(got.stderr, "no public address") {
		t.Errorf("a name for this machine: %d %s", got.code, got.stderr)
	}

	// The operator lets it be.
	settings, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, r.config, string(settings)+"webhooks: {allow: [127.0.0.0/8, \"::1/128\"]}\n")
	restart := func() {
		t.Helper()
		r.backend.Kill()
		r.startBackend()
	}
	restart()
	wait := func(what, name string, want ...string) {
		t.Helper()
		r.await(what, func() bool { return len(h.about(name)) >= len(want) })
		if got := h.about(name); !slices.Equal(got, want) {
			t.Errorf("%s: about %s came %v, want %v", what, name, got, want)
		}
	}

	// It fails with each message at first.
	lives := func(name string) {
		t.Helper()
		r.ctl(nil, "user", "create", "--name", name)
		r.ctl(nil, "user", "disable", name)
		r.ctl(nil, "user", "enable", name)
	}
	lives("anna")
	wait("a receiver that fails at first", "anna", "user.created", "user.disabled", "user.enabled")
	h.with(func() { h.answer = func(string, string) int { return http.StatusOK } })

	// It is away, and the service is killed.
	if err := h.server.Close(); err != nil {
		t.Fatal(err)
	}
	lives("bob")
	type delivery struct {
		ID      string `json:"id"`
		Type    string `json:"type"`
		State   string `json:"state"`
		Status  int    `json:"status"`
		Failure string `json:"failure"`
	}
	deliveries := func(state string) []delivery {
		t.Helper()
		var page struct {
			Items []delivery `json:"items"`
		}
		r.ctl(&page, "webhook", "deliveries", made.ID, "--state", state)
		return page.Items
	}
	r.await("an attempt fails", func() bool {
		return slices.ContainsFunc(deliveries("pending"), func(d delivery) bool { return d.Failure == "connect" })
	})
	if n := len(deliveries("pending")); n != 3 {
		t.Errorf("%d messages wait, want 3", n)
	}
	restart()
	h.open()
	wait("a receiver that was away", "bob", "user.created", "user.disabled", "user.enabled")

	// A gateway goes, and comes back.
	r.nodes[0].Kill()
	wait("a gateway is killed", "one", "gateway.down")
	r.startNode(r.nodes[0])
	wait("a gateway is back", "one", "gateway.down", "gateway.up")

	// Two secrets sign while one is replaced; the receiver has the old one.
	r.ctl(nil, "webhook", "rotate", made.ID)
	lives("carl")
	wait("with two secrets", "carl", "user.created", "user.disabled", "user.enabled")
	h.with(func() {
		if last := h.got[len(h.got)-1]; last.signatures != 2 {
			t.Errorf("the last message has %d signatures", last.signatures)
		}
	})

	// It is gone, says the receiver: that message is given up, and the webhook disabled.
	var gone string
	h.with(func() {
		h.answer = func(id, _ string) int {
			gone = id
			return http.StatusGone
		}
	})
	r.ctl(nil, "user", "create", "--name", "dora")
	var shown struct {
		Status         string `json:"status"`
		DisabledReason string `json:"disabled_reason"`
		Dead           int    `json:"dead"`
	}
	r.await("the webhook is disabled", func() bool {
		r.ctl(&shown, "webhook", "show", made.ID)
		return shown.Status == "disabled"
	})
	dead := deliveries("dead")
	i := slices.IndexFunc(dead, func(d delivery) bool { return d.Status == http.StatusGone })
	if shown.DisabledReason != "gone" || shown.Dead != len(dead) || i < 0 || dead[i].Type != "user.created" {
		t.Fatalf("it is %+v, dead are %+v", shown, dead)
	}
	var entries struct {
		Items []struct {
			Actor struct {
				Kind string `json:"kind"`
			} `json:"actor"`
		} `json:"items"`
	}
	if r.ctl(&entries, "audit", "list", "--action", "webhook.disabled"); len(entries.Items) != 1 || entries.Items[0].Actor.Kind != "system" {
		t.Errorf("the audit log: %+v", entries)
	}
	h.with(func() { h.answer = func(string, string) int { return http.StatusOK } })
	r.ctl(nil, "webhook", "enable", made.ID)
	r.ctl(nil, "webhook", "redeliver", made.ID, dead[i].ID)
	wait("what was given up", "dora", "user.created")
	h.with(func() {
		if last := h.got[len(h.got)-1]; last.id != gone {
			t.Errorf("it came again as %s, at first it was %s", last.id, gone)
		}
	})
	if got := run(t, "", r.env, "httvpsctl", "webhook", "test", made.ID); got.code != 0 || !strings.Contains(got.stdout, "delivered") {
		t.Errorf("a test: %d %s%s", got.code, got.stdout, got.stderr)
	}
	for what, secret := range map[string]string{"the secret": strings.TrimPrefix(made.Secret, "whsec_"), "the URL's path": "planted-path"} {
		if strings.Contains(r.backend.Log(), secret) {
			t.Errorf("the log has %s", what)
		}
	}
	h.with(func() { t.Log(fmt.Sprint(h.asked, " requests, ", len(h.got), " taken")) })
}
