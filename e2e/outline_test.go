package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/test/sstest"
)

// accessKey is the ss:// link of a server.
func accessKey(s *sstest.Libev, name string) string {
	secret := base64.RawURLEncoding.EncodeToString([]byte(s.Cipher + ":" + s.Password))
	return fmt.Sprintf("ss://%s@%s/?outline=1#%s", secret, s.Addr, name)
}

// TestTrafficLeavesThroughOutlineServers: curl and datagrams come out of one of two
// Shadowsocks servers; when it is killed, of the other; and when that is, of none.
func TestTrafficLeavesThroughOutlineServers(t *testing.T) {
	const canary = "canary-of-the-access-keys"
	one := sstest.StartLibev(t, "chacha20-ietf-poly1305", canary)
	two := sstest.StartLibev(t, "aes-256-gcm", canary)
	far := startOrigin(t)
	dns := serveUDP(t, nameServer("far.test", netip.MustParseAddr("127.0.0.1")))
	keys := writeFile(t, filepath.Join(t.TempDir(), "keys"), "# two servers\n"+accessKey(one, "one")+"\n"+accessKey(two, "two")+"\n")
	s := &service{t: t, dir: filepath.Join(t.TempDir(), "server"), env: []string{
		"HTTVPS_GATEWAY_UPSTREAM_MODE=outline", "HTTVPS_GATEWAY_UPSTREAM_OUTLINE_SOURCE=keys", "HTTVPS_GATEWAY_UPSTREAM_OUTLINE_KEYS_FILE=" + keys, "HTTVPS_GATEWAY_LOG_LEVEL=debug",
		"HTTVPS_GATEWAY_UPSTREAM_OUTLINE_RESOLVERS=" + dns.String(), "HTTVPS_GATEWAY_UPSTREAM_OUTLINE_PROBE=" + far.Addr(),
	}}
	s.start()
	t.Cleanup(func() {
		s.proc.Kill()
		if t.Failed() {
			t.Logf("httvps-server said:\n%s", s.proc.Log())
		}
	})
	d := enroll(t, s.Invite)
	d.connect()

	const size = 8 << 20
	sum := sha256.New()
	got, err := d.curl(far.URL() + "/8MiB")
	if err != nil {
		t.Fatal(err)
	}
	sum.Write(got)
	if want := mustSum(t, size); hex.EncodeToString(sum.Sum(nil)) != want {
		t.Errorf("%d bytes, and others than were sent", len(got))
	}
	byName := strings.Replace(far.URL(), "127.0.0.1", "far.test", 1)
	if _, err := d.curl(byName + "/1000"); err != nil { // looked up through the server
		t.Error(err)
	}
	shout := serveUDP(t, bytes.ToUpper)
	if got := associate(t, d.Socks).ask(t, shout, "hello"); got != "HELLO" {
		t.Errorf("a datagram was answered with %q", got)
	}
	if _, err := d.curl("--max-time", "20", "http://10.0.0.1/"); err == nil {
		t.Error("a private address was reached")
	}

	one.Kill()
	killed := time.Now()
	for {
		if _, err := d.curl("--max-time", "20", far.URL()+"/1000"); err == nil {
			break
		} else if time.Since(killed) > time.Minute {
			t.Fatal(err)
		}
	}
	t.Logf("the next curl came out of the second server %v after the first was killed", time.Since(killed).Round(time.Millisecond))
	two.Kill()
	if _, err := d.curl("--max-time", "20", far.URL()+"/1000"); err == nil {
		t.Error("without a server there is a way out")
	}
	if log := s.proc.Log(); strings.Contains(log, canary) || strings.Contains(log, "Y2hhY2hhMjA") || strings.Contains(log, "far.test") {
		t.Errorf("the log has a secret or a target:\n%s", log)
	}
}

// exitOf is what the operator sees of a session.
type exitOf struct {
	ID              string `json:"id"`
	OutlineServerID string `json:"outline_server_id"`
}

// poolEntry is what the operator sees of an Outline server.
type poolEntry struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Sessions int    `json:"sessions"`
}

// pool returns the Outline servers by their names.
func (s *service) pool() map[string]poolEntry {
	s.t.Helper()
	var list struct {
		Items []poolEntry `json:"items"`
	}
	s.ctl(&list, "outline", "list")
	byName := make(map[string]poolEntry, len(list.Items))
	for _, server := range list.Items {
		byName[server.Name] = server
	}
	return byName
}

// addOutline adds an Outline server, as the operator does.
func (s *service) addOutline(server *sstest.Libev, name string, args ...string) {
	s.t.Helper()
	r := run(s.t, accessKey(server, name)+"\n", []string{"HTTVPS_API=" + s.API, "HTTVPS_TOKEN=" + s.Token},
		"httvpsctl", append([]string{"outline", "create", "--region", "local", "--key", "-"}, args...)...)
	if r.code != 0 {
		s.t.Fatalf("httvpsctl outline create: %s", r.stderr)
	}
}

// TestTrafficLeavesThroughTheServicesPool: the operator adds servers while a device
// is connected. curl comes out of the first; when that is killed out of the second,
// in the same session, and the operator sees it down. What is disabled carries its
// streams to their end and no new ones.
func TestTrafficLeavesThroughTheServicesPool(t *testing.T) {
	const canary = "canary-of-the-access-keys"
	one := sstest.StartLibev(t, "chacha20-ietf-poly1305", canary)
	two := sstest.StartLibev(t, "aes-256-gcm", canary)
	three := sstest.StartLibev(t, "aes-128-gcm", canary)
	far, probed := startOrigin(t), startOrigin(t)
	dns := serveUDP(t, nameServer("far.test", netip.MustParseAddr("127.0.0.1")))
	admin := freePort(t)
	s := &service{t: t, dir: filepath.Join(t.TempDir(), "server"), env: []string{
		"HTTVPS_GATEWAY_UPSTREAM_MODE=outline", "HTTVPS_GATEWAY_LOG_LEVEL=debug", "HTTVPS_BACKEND_LOG_LEVEL=debug", "HTTVPS_GATEWAY_ADMIN_LISTEN=" + admin,
		"HTTVPS_GATEWAY_UPSTREAM_OUTLINE_RESOLVERS=" + dns.String(), "HTTVPS_GATEWAY_UPSTREAM_OUTLINE_PROBE=" + probed.Addr(),
	}}
	s.start()
	t.Cleanup(func() {
		s.proc.Kill()
		if t.Failed() {
			t.Logf("httvps-server said:\n%s", s.proc.Log())
		}
	})
	d := enroll(t, s.Invite)
	d.connect()
	fetch := func() error {
		_, err := d.curl("--max-time", "20", far.URL()+"/1000")
		return err
	}
	session := func() exitOf {
		t.Helper()
		var list struct {
			Items []exitOf `json:"items"`
		}
		if s.ctl(&list, "session", "list"); len(list.Items) != 1 {
			t.Fatalf("%d sessions, want 1", len(list.Items))
		}
		return list.Items[0]
	}
	// until waits for what is so within a time.
	until := func(what string, limit time.Duration, so func() bool) time.Duration {
		t.Helper()
		began := time.Now()
		for ; !so(); <-time.After(100 * time.Millisecond) {
			if time.Since(began) > limit {
				t.Fatalf("%s: not within %v", what, limit)
			}
		}
		return time.Since(began)
	}

	if err := fetch(); err == nil {
		t.Fatal("without a server there is a way out")
	}
	s.addOutline(one, "one")
	until("a way out", 20*time.Second, func() bool { return fetch() == nil })
	begun := session()
	if servers := s.pool(); servers["one"].ID != begun.OutlineServerID || servers["one"].Sessions != 1 {
		t.Errorf("the session leaves through %s, of %+v", begun.OutlineServerID, servers)
	}
	byName := strings.Replace(far.URL(), "127.0.0.1", "far.test", 1)
	if _, err := d.curl(byName + "/1000"); err != nil {
		t.Error(err)
	}
	shout := serveUDP(t, bytes.ToUpper)
	if got := associate(t, d.Socks).ask(t, shout, "hello"); got != "HELLO" {
		t.Errorf("a datagram was answered with %q", got)
	}

	s.addOutline(two, "two", "--priority", "1")
	one.Kill()
	killed := time.Now()
	if err := fetch(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(killed)
	t.Logf("the next curl came out of the second server %v after the first was killed", took.Round(time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("the next curl took %v, want 3 s at most", took)
	}
	if now := session(); now.ID != begun.ID || now.OutlineServerID != s.pool()["two"].ID {
		t.Errorf("the session is %+v, was %+v", now, begun)
	}
	took = until("the operator sees it down", 90*time.Second, func() bool { return s.pool()["one"].Status == "down" })
	t.Logf("it is down for the operator after %v", took.Round(time.Second))
	until("the other is up", time.Minute, func() bool { return s.pool()["two"].Status == "up" })

	// It is disabled: its stream goes on, the next one takes another way.
	slow := make(chan error, 1)
	before := far.Requests()
	go func() {
		got, err := d.curl("--limit-rate", "1M", "--max-time", "60", far.URL()+"/8MiB")
		if err == nil && len(got) != 8<<20 {
			err = fmt.Errorf("%d bytes", len(got))
		}
		slow <- err
	}()
	until("the slow download", 20*time.Second, func() bool { return far.Requests() > before })
	s.addOutline(three, "three", "--priority", "2")
	s.ctl(nil, "outline", "disable", "two")
	until("the next stream's way", 20*time.Second, func() bool {
		if err := fetch(); err != nil {
			t.Fatal(err)
		}
		return session().OutlineServerID == s.pool()["three"].ID
	})
	if err := <-slow; err != nil {
		t.Errorf("the stream through the disabled server: %v", err)
	}

	// Its key is another one.
	four := sstest.StartLibev(t, "aes-192-gcm", canary)
	r := run(t, accessKey(four, "four")+"\n", []string{"HTTVPS_API=" + s.API, "HTTVPS_TOKEN=" + s.Token}, "httvpsctl", "outline", "update", "three", "--key", "-")
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	three.Kill()
	until("a stream with the new key", 20*time.Second, func() bool { return fetch() == nil })

	s.ctl(nil, "outline", "disable", "three")
	until("no way out", 20*time.Second, func() bool { return fetch() != nil })
	if now := session(); now.ID != begun.ID {
		t.Error("the session was lost")
	}
	metrics := visit(t, "http://"+admin+"/metrics")
	if !strings.Contains(metrics, `httvps_gateway_opens_total{result="no_outline_nodes_available"}`) {
		t.Errorf("no refusal is counted:\n%s", metrics)
	}
	d.proc.Kill()
	until("the end of the session gives its place back", 2*time.Minute, func() bool {
		for _, server := range s.pool() {
			if server.Sessions != 0 {
				return false
			}
		}
		return true
	})
	for what, text := range map[string]string{"log": s.proc.Log(), "metrics": metrics} {
		for _, secret := range []string{canary, "Y2hhY2hhMjA", "YWVzLT", "far.test", one.Addr.String(), two.Addr.String()} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has a secret or a target, %s:\n%s", what, secret, text)
			}
		}
	}
}
