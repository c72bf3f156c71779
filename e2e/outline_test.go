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
		"HTTVPS_GATEWAY_UPSTREAM_MODE=outline", "HTTVPS_GATEWAY_UPSTREAM_OUTLINE_KEYS_FILE=" + keys, "HTTVPS_GATEWAY_LOG_LEVEL=debug",
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
