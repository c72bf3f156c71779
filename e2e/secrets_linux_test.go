package e2e

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// told are the secrets that went over the control plane's API.
type told struct {
	mu      sync.Mutex // guards the following field
	secrets map[string]string
}

var problemCode = regexp.MustCompile(`^[a-z]+(_[a-z]+)+$`)

var secretFields = regexp.MustCompile(`"(access_token|key|code|secret|password)":\s*"([^"]{8,})"`)

// hear remembers what a request and its answer have.
func (h *told) hear(asked *http.Request, answer []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, credential, ok := strings.Cut(asked.Header.Get("Authorization"), " "); ok {
		h.secrets["credential of "+asked.URL.Path] = credential
	}
	for _, found := range secretFields.FindAllSubmatch(answer, -1) {
		if problemCode.Match(found[2]) {
			continue // that of a refusal, which is no secret
		}
		h.secrets[string(found[1])+" of "+asked.URL.Path] = string(found[2])
	}
}

// A gateway, as it is shipped and with all that it can log, has devices and strangers,
// and things go wrong around it. What it has shown by then is searched for secrets, for
// where people went and for where they came from.
func TestAGatewayShowsNoSecretAndNobodysWays(t *testing.T) {
	heard := &told{secrets: make(map[string]string)}
	r := startRegion(t, []string{"one"}, "1s", "")
	n := r.nodes[0]
	r.front.listen(heard.hear)
	far, slow := startOrigin(t), endless(t)
	echo := serveUDP(t, func(question []byte) []byte { return question })

	planted := map[string]string{
		"a target": strings.TrimPrefix(far.URL(), "http://"), "a target of datagrams": echo.String(), "a target that lasts": strings.TrimPrefix(slow, "http://"),
		"a name": "planted-name.test", "a private target": "10.11.12.13", "a target that refuses": freePort(t),
		"a stranger's path": "planted-path", "a stranger's query": "planted-query", "a stranger's cookie": "planted-cookie", "a stranger's token": "planted-token",
		"a stranger's address": "127.0.0.77",
	}
	d := r.enrol("anna")
	d.connect()
	if _, err := d.curl("-o", os.DevNull, far.URL()+"/1000"); err != nil {
		t.Fatal(err)
	}
	if got := associate(t, d.Socks).ask(t, echo, "hello"); got != "hello" {
		t.Fatalf("a datagram was answered with %q", got)
	}
	for _, target := range []string{"a name", "a private target", "a target that refuses"} {
		if _, err := d.curl("--max-time", "20", "http://"+planted[target]+"/"); err == nil {
			t.Errorf("%s was reached", target)
		}
	}
	lasting := make(chan error, 1)
	go func() {
		_, err := d.curl("-o", os.DevNull, slow)
		lasting <- err
	}()
	defer func() { <-lasting }()

	base := strings.Replace(n.url, "wss://", "https://", 1)
	host, _, _ := strings.Cut(strings.TrimPrefix(base, "https://"), "/")
	for _, args := range [][]string{
		{"https://" + host + "/planted-path?planted-query"},
		{"-H", "Cookie: sid=planted-cookie", "-H", "Authorization: Bearer planted-token", base},
		{ // the upgrade without a knock
			"-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
			"-H", "Cookie: sid=planted-cookie", "--http1.1", base + "?planted-query",
		},
		{"-X", "planted-path", "--data-binary", "planted-token", base},
		{"--tls-max", "1.2", base}, // TLS fails
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "-k", "-o", os.DevNull, "--interface", planted["a stranger's address"]}, args...)...)
		_ = cmd.Run() // whatever it gets
		cancel()
	}
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(planted["a stranger's address"])}}
	conn, err := stranger.DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /planted-path HTTP/1.1\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()

	// The device's copy is revoked under its feet, another one comes while nobody can say
	// who it is, settings are read again, and the gateway is ended.
	late := r.enrol("late")
	r.revoke("anna")
	d.wantExit(3, "device_revoked")
	if err := syscall.Kill(n.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	late.connect() // and so knows the gateway
	r.backend.Kill()
	r.await("the gateway stands in", func() bool { return r.metric(n, "httvps_gateway_degraded") == "1" })
	late.proc.Kill()

	heard.mu.Lock()
	defer heard.mu.Unlock()
	if len(heard.secrets) < 4 {
		t.Fatalf("only these secrets were told: %d", len(heard.secrets))
	}
	maps.Copy(planted, heard.secrets)
	key := gatewayKey(t, n)
	planted["the gateway's key in hexadecimal"], planted["the gateway's key in base64"] = hex.EncodeToString(key), strings.TrimRight(base64.StdEncoding.EncodeToString(key), "=")
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{"metrics": r.metrics(n), "command line": string(cmdline)}
	if err := syscall.Kill(n.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-n.Exited()
	shown["log"] = n.Log()
	for where, text := range shown {
		for what, secret := range planted {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has %s", where, what)
			}
		}
	}
	if found := regexp.MustCompile(`->127\.0\.0\.1:\d+`).FindString(shown["log"]); found != "" {
		t.Errorf("the log has the other end of a connection: %s", found)
	}
	if !strings.Contains(shown["log"], `"level":"DEBUG"`) {
		t.Error("the log is not at debug level")
	}
}

// gatewayKey is the end of a gateway's key, which is the secret of it.
func gatewayKey(t *testing.T, n *member) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.data, "gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil || len(block.Bytes) < 32 {
		t.Fatal("the gateway's key is none")
	}
	return block.Bytes[len(block.Bytes)-32:]
}
