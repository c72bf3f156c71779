package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/e2e/internal/stack"
	"github.com/httvps/httvps/internal/devca"
)

// fleet is a backend and gateways as processes of their own, with certificate
// files, as an operator runs them.
type fleet struct {
	*service
	env []string // trust in the certificates, for every program
}

// certificate writes PEM files for this machine and returns the settings that
// name them.
func certificate(t *testing.T, dir string, names ...string) (settings, ca string) {
	t.Helper()
	authority, err := devca.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(append([]string{"127.0.0.1", "localhost"}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, text := range map[string][]byte{
		certFile: chain, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("tls: {cert_file: %s, key_file: %s}\n", certFile, keyFile), authority.CertFile()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (f *fleet) launch(name string, args ...string) *stack.Process {
	f.t.Helper()
	p, err := stack.Start(bin, name, f.env, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		p.Kill()
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", name, p.Log())
		}
	})
	return p
}

// The production road without --dev: a backend, an owner by the one-time link,
// a gateway that joins, a device; then the gateway is killed and the device
// goes over to the second one.
func TestBackendAndGatewaysApart(t *testing.T) {
	dir := t.TempDir()
	tls, ca := certificate(t, dir)
	f := &fleet{service: &service{t: t}, env: []string{"SSL_CERT_FILE=" + ca, "XDG_CONFIG_HOME=" + dir}}

	config := writeFile(t, filepath.Join(dir, "backend.yaml"), tls+
		fmt.Sprintf("listen: %s\nadmin_listen: %s\ndata_dir: %s\ngateway_heartbeat: 1s\n", freePort(t), freePort(t), filepath.Join(dir, "backend")))
	backend := f.launch("httvps-backend", "serve", "--config", config)
	var control struct {
		API       string `json:"api"`
		Admin     string `json:"admin"`
		Bootstrap string `json:"bootstrap"`
	}
	if err := backend.Ready(t.Context(), &control); err != nil {
		t.Fatal(err)
	}

	for _, args := range [][]string{{"health"}, {"health", "--ready"}} {
		if r := run(t, "", nil, "httvps-backend", append(args, "--config", config)...); r.code != 0 {
			t.Errorf("httvps-backend %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
		}
	}

	ctl := func(v any, args ...string) {
		t.Helper()
		r := run(t, "", f.env, "httvpsctl", append(args, "-o", "json")...)
		if r.code != 0 {
			t.Fatalf("httvpsctl %s: %s", strings.Join(args, " "), r.stderr)
		}
		if v != nil {
			if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctl(nil, "bootstrap", control.Bootstrap)
	if r := run(t, "", f.env, "httvpsctl", "bootstrap", control.Bootstrap, "--name", "second"); r.code == 0 {
		t.Error("the bootstrap link worked twice")
	}
	ctl(nil, "region", "create", "--code", "eu")

	gateways := make(map[string]*stack.Process)
	for _, name := range []string{"one", "two"} {
		var made struct {
			Join string `json:"join"`
		}
		ctl(&made, "gateway", "create", "--name", name, "--region", "eu")
		address := freePort(t)
		config := writeFile(t, filepath.Join(dir, name+".yaml"), tls+fmt.Sprintf(
			"listen: %s\nurl: wss://%s/%s\ndata_dir: %s\nadmin_listen: 127.0.0.1:0\nupstream: {allow: [127.0.0.0/8]}\n",
			address, address, name, filepath.Join(dir, name)))
		if r := run(t, made.Join+"\n", f.env, "httvps-gateway", "join", "-", "--config", config); r.code != 0 {
			t.Fatalf("join: %s", r.stderr)
		}
		if r := run(t, made.Join+"\n", f.env, "httvps-gateway", "join", "-", "--config", config, "--data", filepath.Join(dir, "thief")); r.code == 0 {
			t.Error("the join link worked twice")
		}
		p := f.launch("httvps-gateway", "serve", "--config", config)
		var ready stack.ServerReady
		if err := p.Ready(t.Context(), &ready); err != nil {
			t.Fatal(err)
		}
		gateways[ready.Gateway] = p
	}

	ctl(nil, "user", "create", "--name", "anna")
	ctl(nil, "plan", "create", "--name", "basic", "--max-devices", "2", "--max-sessions", "1")
	ctl(nil, "subscription", "create", "--user", "anna", "--plan", "basic")
	var invitation object
	ctl(&invitation, "user", "invite", "anna")
	d := &device{t: t, home: filepath.Join(dir, "device"), env: f.env}
	if r := run(t, "", f.env, "httvps", "enroll", invitation.Link, "--home", d.home); r.code != 0 {
		t.Fatalf("enroll: %s", r.stderr)
	}
	d.connect()
	far := startOrigin(t)
	if _, err := d.curl(far.URL() + "/100000"); err != nil {
		t.Fatal(err)
	}

	t.Run("a second session is over the plan's limit", func(t *testing.T) {
		second := &device{t: t, home: filepath.Join(dir, "second"), env: f.env}
		ctl(&invitation, "user", "invite", "anna")
		if r := run(t, "", f.env, "httvps", "enroll", invitation.Link, "--home", second.home); r.code != 0 {
			t.Fatalf("enroll: %s", r.stderr)
		}
		r := run(t, "", f.env, "httvps", "connect", "--home", second.home, "--socks", "127.0.0.1:0", "--connect-timeout", "5s")
		if (r.code != 3 && r.code != 4) || !strings.Contains(r.stderr, "session_limit") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})

	backend.Kill()
	if r := run(t, "", nil, "httvps-backend", "health", "--config", config); r.code != 1 {
		t.Errorf("health of a control plane that is gone: exit code %d", r.code)
	}
	backend = f.launch("httvps-backend", "serve", "--config", config)
	if err := backend.Ready(t.Context(), &control); err != nil {
		t.Fatal(err)
	}

	gateways[d.Gateway].Kill()
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := d.curl("--max-time", "20", far.URL()+"/100000")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the gateway was killed: %v", err)
		}
	}
}

// A server on a host that cannot reach itself under its public name still
// starts: its two halves do not need the network to speak with each other.
func TestServerNeedsNoWayToItsPublicName(t *testing.T) {
	dir := t.TempDir()
	tls, ca := certificate(t, dir, "vpn.example.invalid")
	api, tunnel := freePort(t), freePort(t)
	inYAML := "  " + tls
	config := writeFile(t, filepath.Join(dir, "server.yaml"), fmt.Sprintf(
		"backend:\n  listen: %s\n  public_url: https://vpn.example.invalid:8443\n%sgateway:\n  listen: %s\n  url: wss://vpn.example.invalid/x\n  admin_listen: 127.0.0.1:0\n%s",
		api, inYAML, tunnel, inYAML))
	f := &fleet{service: &service{t: t}, env: []string{"SSL_CERT_FILE=" + ca, "XDG_CONFIG_HOME=" + dir}}
	var ready stack.ServerReady
	for start := range 3 {
		server, err := stack.Start(bin, "httvps-server", nil, "--data", filepath.Join(dir, "data"), "--config", config)
		if err != nil {
			t.Fatal(err)
		}
		err = server.Ready(t.Context(), &ready)
		if err == nil && start == 0 {
			link := strings.Replace(ready.Bootstrap, "vpn.example.invalid:8443", api, 1)
			if r := run(t, "", f.env, "httvpsctl", "bootstrap", link); r.code != 0 {
				t.Errorf("bootstrap: %s", r.stderr)
			}
		}
		if start == 2 {
			var gateways listing
			r := run(t, "", f.env, "httvpsctl", "gateway", "list", "-o", "json")
			if err := json.Unmarshal([]byte(r.stdout), &gateways); err != nil || len(gateways.Items) != 1 {
				t.Errorf("%d gateways after restarts, want the one: %v %s", len(gateways.Items), err, r.stderr)
			}
		}
		if code, stopErr := server.Stop(); code != 0 || stopErr != nil || err != nil {
			t.Fatalf("start %d: %v; ended with %d, %v:\n%s", start, err, code, stopErr, server.Log())
		}
	}
}
