package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httvps/httvps/e2e/internal/stack"
	"github.com/httvps/httvps/test/acmetest"
)

// machine is a directory that a guide takes for the whole of a machine: with a
// systemd of three lines, and high ports in place of the usual ones.
type machine struct {
	t    *testing.T
	root string
	env  []string
}

// systemctl runs the commands of the unit, in whose directory journal and pid are.
const systemctl = `#!/bin/bash
set -eu
name=${@: -1}; unit=UNITS/$name.service
commands() { sed -n "s/^$1=//p" "$unit" | sed 's#/usr/local/bin#ROOT/bin#g; s#/etc/httvps#ROOT/etc#g; s#/var/lib/httvps#ROOT/data#g'; }
case $1 in
enable) exec $(commands ExecStart) > "$unit.out" 2> "$unit.journal" & echo $! > "$unit.pid" ;;
reload) MAINPID=$(cat "$unit.pid"); commands ExecReload | while read -r line; do eval "$line"; done ;;
stop) kill "$(cat "$unit.pid")"; while kill -0 "$(cat "$unit.pid")" 2> /dev/null; do sleep 0.1; done ;;
esac
`

const journalctl = `#!/bin/bash
exec cat "UNITS/$2.service.journal"
`

func newMachine(t *testing.T, env ...string) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	for _, dir := range []string{"bin", "etc", "units", "data"} {
		if err := os.Mkdir(filepath.Join(m.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	units := filepath.Join(m.root, "units")
	for name, text := range map[string]string{"systemctl": systemctl, "journalctl": journalctl, "useradd": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(m.root, "bin", name), []byte(strings.NewReplacer("UNITS", units, "ROOT", m.root).Replace(text)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.env = append([]string{
		"PATH=" + filepath.Join(m.root, "bin") + ":" + os.Getenv("PATH"), "HOME=" + m.root, "XDG_CONFIG_HOME=" + m.root,
	}, env...)
	t.Cleanup(func() {
		pids, _ := filepath.Glob(filepath.Join(units, "*.pid"))
		for _, file := range pids {
			text, _ := os.ReadFile(file)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if t.Failed() {
			journals, _ := filepath.Glob(filepath.Join(units, "*.journal"))
			for _, file := range journals {
				text, _ := os.ReadFile(file)
				t.Logf("%s:\n%s", filepath.Base(file), text)
			}
		}
	})
	return m
}

// here is a text with this machine's places and ports.
func (m *machine) here(text string, replace ...string) string {
	return strings.NewReplacer(append(replace,
		"make build && ", "", " -g httvps", "", "/usr/local/bin", filepath.Join(m.root, "bin"), "/etc/systemd/system", filepath.Join(m.root, "units"),
		"/etc/httvps", filepath.Join(m.root, "etc"), "/var/lib/httvps", filepath.Join(m.root, "data"),
	)...).Replace(text)
}

// sh runs commands as an operator at a shell does, from the repository.
func (m *machine) sh(commands string) (string, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euc", commands)
	cmd.Dir, cmd.Env = filepath.Join(bin, ".."), m.env
	cmd.WaitDelay = time.Second // what it started goes on
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(err.Error(), "WaitDelay") {
		return string(out), fmt.Errorf("%w:\n%s", err, out)
	}
	return string(out), nil
}

func (m *machine) must(commands string) string {
	m.t.Helper()
	out, err := m.sh(commands)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) journal(unit string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, "units", unit+".service.journal"))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func number(t *testing.T, address string) int {
	t.Helper()
	n, err := strconv.Atoi(portOf(address))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits until what happens in another process is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s never comes", what)
		}
	}
}

var guideBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// The operator's guide is walked as it stands there, from installation to a device
// that is connected: with a real ACME authority, and with what its unit runs.
func TestTheGuideLeadsFromAnEmptyMachineToADevice(t *testing.T) {
	text, err := os.ReadFile("../docs/07-operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, install, _ := strings.Cut(string(text), "## Install\n")
	install, _, _ = strings.Cut(install, "\n## ")
	var blocks []string
	for _, block := range guideBlock.FindAllStringSubmatch(install, -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of commands, want 4: install, configure, start, first user", len(blocks))
	}
	far := startOrigin(t)
	tunnel, api, plain := freePort(t), freePort(t), freePort(t)
	authority := acmetest.Start(t, acmetest.Ports{HTTP: number(t, plain), TLS: number(t, tunnel)})
	m := newMachine(t, "SSL_CERT_FILE="+authority.RootFile,
		"HTTVPS_GATEWAY_ADMIN_LISTEN="+freePort(t), "HTTVPS_GATEWAY_UPSTREAM_ALLOW=127.0.0.0/8", "HTTVPS_BACKEND_GATEWAY_HEARTBEAT=1s")
	m.must(m.here(blocks[0]))
	m.must(m.here(blocks[1],
		"vpn.example.org:8443", "127.0.0.1:"+portOf(api), "vpn.example.org/", "127.0.0.1:"+portOf(tunnel)+"/",
		`":8443"`, api, `":443"`, tunnel, `":80"`, plain,
		"email: you@example.org}", "email: you@example.org, directory: "+authority.Directory+", ca_file: "+authority.CAFile+", challenges: [http-01, tls-alpn-01]}"))
	out := m.must(m.here(blocks[2]))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	link := lines[len(lines)-1]
	if !strings.HasPrefix(link, "https://"+api+"/") || !strings.Contains(link, "/bootstrap#code=") {
		t.Fatalf("the last line is no bootstrap link:\n%s", out)
	}
	if n := authority.Orders(); n != 1 {
		t.Errorf("%d certificates were asked for, want one for both halves", n)
	}
	m.must("httvpsctl bootstrap '" + link + "'")
	out = m.must(blocks[3] + "httvpsctl region list\nhttvpsctl gateway list\n")
	if !strings.Contains(out, "online") {
		t.Errorf("no gateway is online:\n%s", out)
	}
	invitation := regexp.MustCompile(`https://\S+/join#\S+`).FindString(out)
	home := filepath.Join(m.root, "device")
	if r := run(t, "", m.env, "httvps", "enroll", invitation, "--home", home); r.code != 0 {
		t.Fatalf("enroll: %s\n%s", r.stderr, out)
	}
	d := &device{t: t, home: home, env: m.env}
	d.connect()
	if got, err := d.curl(far.URL() + "/1000"); err != nil || len(got) != 1000 {
		t.Errorf("through the tunnel came %d bytes, %v", len(got), err)
	}

	// What a visitor sees at port 80.
	resp, err := (&http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Get("http://" + plain + "/page?x=1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || to != "https://"+tunnel+"/page?x=1" {
		t.Errorf("plain HTTP: %d to %q", resp.StatusCode, to)
	}

	// A change is taken over, a mistake is not, and the session goes on.
	config := filepath.Join(m.root, "etc/httvps.yaml")
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, string(before)+"  masquerade: {hsts: 1h}\n  limits: {sessions: 77}\n  memory_limit: 900000000\n")
	m.must("systemctl reload httvps-server")
	eventually(t, "the reload", func() bool {
		return strings.Contains(m.journal("httvps-server"), `"changed":["limits.sessions","masquerade.hsts"],"needs_restart":["memory_limit"]`)
	})
	writeFile(t, config, string(before)+"  limits: {sessions: 0, session: 1}\n")
	if out, err := m.sh("systemctl reload httvps-server"); err == nil || !strings.Contains(out, "limits.session: unknown key") {
		t.Errorf("a reload with a mistake: %v\n%s", err, out)
	}
	m.must("kill -HUP $(cat " + m.root + "/units/httvps-server.service.pid)")
	eventually(t, "the refusal", func() bool { return strings.Contains(m.journal("httvps-server"), `"configuration not reloaded"`) })
	if got, err := d.curl(far.URL() + "/2000"); err != nil || len(got) != 2000 {
		t.Errorf("after the reloads came %d bytes, %v", len(got), err)
	}
	if strings.Contains(m.journal("httvps-server"), far.URL()) {
		t.Error("the journal has a target")
	}

	// The certificate is kept: a start needs no authority.
	d.proc.Kill()
	writeFile(t, config, string(before))
	authority.Away(true)
	m.must("systemctl stop httvps-server; systemctl enable --now httvps-server\n" +
		m.here("until httvps-server health --ready --config /etc/httvps/httvps.yaml; do sleep 0.2; done"))
	d.connect()
	d.proc.Kill()
	m.backUpAndRestore(string(text))
	d.connect()
	if got, err := d.curl(far.URL() + "/1000"); err != nil || len(got) != 1000 {
		t.Errorf("after the restore came %d bytes, %v", len(got), err)
	}
}

// backUpAndRestore walks that part of the guide.
func (m *machine) backUpAndRestore(guide string) {
	m.t.Helper()
	_, part, _ := strings.Cut(guide, "## Back up and restore\n")
	part, _, _ = strings.Cut(part, "\n## ")
	blocks := guideBlock.FindAllStringSubmatch(part, -1)
	if len(blocks) != 4 {
		m.t.Fatalf("%d blocks of commands, want 4: key, configure, back up, restore", len(blocks))
	}
	step := func(n int) string {
		return m.must("cd " + m.root + "\n" + m.here(blocks[n][1], " -o httvps", "", "chown -R httvps: ", ": "))
	}
	ready := m.here("until httvps-server health --ready --config /etc/httvps/httvps.yaml; do sleep 0.2; done\n")
	if out := step(0); !strings.Contains(out, "age1") || strings.Contains(out, "AGE-SECRET") {
		m.t.Errorf("the key's public half: %s", out)
	}
	step(1)
	m.must(ready)
	eventually(m.t, "a backup by the clock", func() bool {
		files, _ := filepath.Glob(filepath.Join(m.root, "data/backups/httvps-*.age"))
		return len(files) == 1
	})
	if out := step(2); !strings.Contains(out, "every total is what the reports lead to") || !strings.Contains(out, "entries are as they were written") {
		m.t.Errorf("verified: %s", out)
	}
	m.must("httvpsctl user create --name late")
	if out := step(3); !strings.Contains(out, "The service is as it was at ") {
		m.t.Errorf("restored: %s", out)
	}
	m.must(ready)
	if out := m.must("httvpsctl user list"); !strings.Contains(out, "anna") || strings.Contains(out, "late") {
		m.t.Errorf("users after the restore: %s", out)
	}
}

// A control plane and a gateway with files of their own, one of which joining
// writes; both have their certificates made, and the gateway is online in seconds.
func TestAGatewayThatJoinsWritesItsConfiguration(t *testing.T) {
	api, apiPlain, tunnel := freePort(t), freePort(t), freePort(t)
	ofAPI := acmetest.Start(t, acmetest.Ports{HTTP: number(t, apiPlain), TLS: 1})
	ofGateway := acmetest.Start(t, acmetest.Ports{HTTP: 1, TLS: number(t, tunnel)})
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	var both []byte
	for _, file := range []string{ofAPI.RootFile, ofGateway.RootFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, text...)
	}
	writeFile(t, roots, string(both))
	f := &fleet{service: &service{t: t}, env: []string{"SSL_CERT_FILE=" + roots, "XDG_CONFIG_HOME=" + dir}}
	config := writeFile(t, filepath.Join(dir, "backend.yaml"), fmt.Sprintf(
		"public_url: https://%s\nlisten: %s\nhttp_listen: %s\ndata_dir: %s\ngateway_heartbeat: 1s\ntls: {acme: {enabled: true, directory: %s, ca_file: %s}}\n",
		api, api, apiPlain, filepath.Join(dir, "backend"), ofAPI.Directory, ofAPI.CAFile))
	var control struct {
		Bootstrap string `json:"bootstrap"`
	}
	if err := f.launch("httvps-backend", "serve", "-c", config).Ready(t.Context(), &control); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "", nil, "httvps-backend", "health", "--ready", "-c", config); r.code != 0 {
		t.Errorf("health: %s", r.stderr)
	}
	ctl := func(args ...string) string {
		t.Helper()
		r := run(t, "", f.env, "httvpsctl", append(args, "-o", "json")...)
		if r.code != 0 {
			t.Fatalf("httvpsctl %s: %s", strings.Join(args, " "), r.stderr)
		}
		return r.stdout
	}
	ctl("bootstrap", control.Bootstrap)
	ctl("region", "create", "--code", "eu")
	var made struct {
		Join string `json:"join"`
	}
	if err := json.Unmarshal([]byte(ctl("gateway", "create", "--name", "one", "--region", "eu")), &made); err != nil {
		t.Fatal(err)
	}

	written := filepath.Join(dir, "gateway.yaml")
	args := []string{"join", "-", "-c", written, "--url", "wss://" + tunnel, "--listen", tunnel, "--data", filepath.Join(dir, "gateway"), "--admin-listen", ""}
	if r := run(t, made.Join+"\n", f.env, "httvps-gateway", args...); r.code != 2 || !strings.Contains(r.stderr, "--acme") {
		t.Errorf("a join without a word about the certificate: %d, %s", r.code, r.stderr)
	}
	// The authority of the test is no public one, and asks at other ports: that no flag says.
	environ := append(f.env, "HTTVPS_GATEWAY_TLS_ACME_DIRECTORY="+ofGateway.Directory, "HTTVPS_GATEWAY_TLS_ACME_CA_FILE="+ofGateway.CAFile,
		"HTTVPS_GATEWAY_TLS_ACME_CHALLENGES=tls-alpn-01", "HTTVPS_GATEWAY_HTTP_LISTEN="+freePort(t))
	r := run(t, made.Join+"\n", environ, "httvps-gateway", append(args, "--acme")...)
	if r.code != 0 || !strings.HasPrefix(r.stdout, "wrote "+written+"\njoined as gateway ") {
		t.Fatalf("join: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	text, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^url: wss://`+regexp.QuoteMeta(tunnel)+`/[a-z2-7]{24}$`).Match(text) || strings.Contains(string(text), "limits") {
		t.Errorf("the configuration is\n%s", text)
	}
	f.env = environ
	var ready stack.ServerReady
	if err := f.launch("httvps-gateway", "serve", "-c", written).Ready(t.Context(), &ready); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway", func() bool { return strings.Contains(ctl("gateway", "list"), `"online"`) })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(both)
	conn, err := tls.Dial("tcp", tunnel, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatalf("the gateway's certificate: %v", err)
	}
	conn.Close()
}

// Without free descriptors a gateway waits, says so, and serves those who waited
// when there are some again.
func TestWithoutDescriptorsConnectionsWait(t *testing.T) {
	admin := freePort(t)
	s := &service{t: t, dir: filepath.Join(t.TempDir(), "server"), env: []string{
		"HTTVPS_GATEWAY_ADMIN_LISTEN=" + admin, "HTTVPS_GATEWAY_PPROF_LISTEN=" + freePort(t), "HTTVPS_GATEWAY_MEMORY_LIMIT=400000000",
	}}
	s.start()
	t.Cleanup(s.proc.Kill)
	if !strings.Contains(s.proc.Log(), `"msg":"memory limit","bytes":400000000,"from":"memory_limit"`) {
		t.Errorf("the log says nothing of the memory limit:\n%s", s.proc.Log())
	}
	limit := func(set *unix.Rlimit) (before unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(s.proc.PID(), unix.RLIMIT_NOFILE, set, &before); err != nil {
			t.Fatal(err)
		}
		return before
	}
	before := limit(nil)
	limit(&unix.Rlimit{Cur: 3, Max: before.Max}) // less than it has

	address := strings.Split(s.Gateway, "/")[2]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the warning", func() bool { return strings.Contains(s.proc.Log(), "may open no more files") })
	<-time.After(3 * time.Second) // of trying
	limit(&before)
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if err := secure.Handshake(); err != nil {
		t.Errorf("who waited: %v", err)
	}
	resp, err := new(http.Client).Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`httvps_gateway_connections_refused_total\{limit="descriptors"\} (\d+)`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no metric in\n%s", text)
	}
	// 5 ms, 10 ms … 1 s: a spin would be hundreds of thousands.
	if tries, err := strconv.Atoi(string(m[1])); err != nil || tries < 2 || tries > 100 {
		t.Errorf("%s tries", m[1])
	}
	if n := strings.Count(s.proc.Log(), "may open no more files"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
