package e2e

import (
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// door leads to an address until it is closed.
type door struct {
	ln     net.Listener
	once   sync.Once
	closed chan struct{}
	mu     sync.Mutex // guards the following fields
	to     string
	conns  []net.Conn
	frozen bool
	wg     sync.WaitGroup
}

func openDoor(t *testing.T) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{ln: ln, closed: make(chan struct{})}
	d.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { d.pass(conn) })
		}
	})
	t.Cleanup(d.close)
	return d
}

func (d *door) leadTo(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = address
}

func (d *door) pass(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	d.mu.Lock()
	d.conns = append(d.conns, conn, far)
	d.mu.Unlock()
	go func() { _, _ = io.Copy(far, conn); _ = far.Close() }()
	_, _ = io.Copy(conn, &freezing{Reader: far, door: d})
}

// freeze has each connection, those that there are and those that come, pass 16 KiB on and
// then nothing.
func (d *door) freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frozen = true
}

// freezing is what a door passes on to whoever came through it.
type freezing struct {
	io.Reader
	door   *door
	passed int // since the door froze
}

func (f *freezing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	f.door.mu.Lock()
	frozen := f.door.frozen
	f.door.mu.Unlock()
	if !frozen {
		return n, err
	}
	if f.passed += n; f.passed > 16<<10 {
		<-f.door.closed
		return 0, io.EOF
	}
	return n, err
}

func (d *door) close() {
	_ = d.ln.Close()
	d.once.Do(func() { close(d.closed) })
	d.mu.Lock()
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// TestABlockedControlPlaneEndsNobodysAccess closes the way to the service's own address:
// a device that has connected before connects again, by a gateway.
func TestABlockedControlPlaneEndsNobodysAccess(t *testing.T) {
	way := openDoor(t)
	api := freePort(t)
	way.leadTo(api)
	s := startServiceIn(t, []string{"HTTVPS_BACKEND_PUBLIC_URL=https://" + way.ln.Addr().String()}, "--api", api)
	if !strings.Contains(s.Invite, way.ln.Addr().String()) {
		t.Fatalf("invitations lead elsewhere than to %s", way.ln.Addr())
	}
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	if _, err := d.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	way.close()

	d.connect()
	if _, err := d.curl(far.URL() + "/1000"); err != nil {
		t.Error(err)
	}
	var status struct {
		State string
		Plan  *struct {
			Name, Status string
			Allowed      bool
		}
		PlanError string `json:"plan_error"`
	}
	r := run(t, "", nil, "httvps", "status", "--home", d.home, "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil || status.State != "connected" || status.Plan == nil || !status.Plan.Allowed || status.Plan.Status != "active" {
		t.Errorf("status: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	r = run(t, "", nil, "httvps", "doctor", "--home", d.home)
	if r.code != 0 || !strings.Contains(r.stdout, "WRONG   "+way.ln.Addr().String()+" answers") || !strings.Contains(r.stdout, "This device can connect") {
		t.Errorf("doctor: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// A stranger at the same path meets the site.
	gateway := hostOf(d.Gateway)
	path := s.Invite[strings.Index(s.Invite, way.ln.Addr().String())+len(way.ln.Addr().String()) : strings.Index(s.Invite, "/join")]
	missing := visit(t, "https://"+gateway+"/nothing")
	for _, question := range []string{"/api/v1/me", "/api/v1/gateways", "/api/v1/health"} {
		if got := visit(t, "https://"+gateway+path+question); got != missing {
			t.Errorf("%s is\n%s\nwant\n%s", question, got, missing)
		}
	}
}

// hostOf is the host and port of a URL.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// TestInvitationsTravelAsPictures has httvps and, where it is installed, zbarimg read
// what httvpsctl wrote, and httvps what qrencode did.
func TestInvitationsTravelAsPictures(t *testing.T) {
	s := startService(t)
	s.ctl(nil, "user", "create", "--name", "anna")
	s.ctl(nil, "user", "create", "--name", "boris")
	picture := filepath.Join(t.TempDir(), "invitation.png")
	link, err := s.tryCtl("user", "invite", "anna", "--qr", picture)
	if err != nil {
		t.Fatal(err)
	}
	link = strings.TrimSpace(link)
	if zbarimg, err := exec.LookPath("zbarimg"); err == nil {
		if out, err := exec.CommandContext(t.Context(), zbarimg, "-q", "--raw", picture).Output(); err != nil || strings.TrimSpace(string(out)) != link {
			t.Errorf("zbarimg reads %q, %v", out, err)
		}
	}
	if r := run(t, "", nil, "httvps", "enroll", picture, "--home", filepath.Join(t.TempDir(), "one")); r.code != 0 {
		t.Errorf("httvps enroll: exit code %d: %s", r.code, r.stderr)
	}
	if r := run(t, link, nil, "httvps", "enroll", "-", "--home", filepath.Join(t.TempDir(), "again")); r.code != 3 || !strings.Contains(r.stderr, "invalid_invitation") {
		t.Errorf("the link of the picture, again: exit code %d: %s", r.code, r.stderr)
	}
	qrencode := need(t, "qrencode", "qrencode")
	var invitation object
	s.ctl(&invitation, "user", "invite", "boris")
	other := filepath.Join(t.TempDir(), "other.png")
	if out, err := exec.CommandContext(t.Context(), qrencode, "-o", other, invitation.Link).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := run(t, "", nil, "httvps", "enroll", other, "--home", filepath.Join(t.TempDir(), "two")); r.code != 0 {
		t.Errorf("httvps enroll of qrencode's: exit code %d: %s", r.code, r.stderr)
	}
}

// TestABlockedGatewayIsReachedOverItsFront freezes the gateway's own address while a
// download by way of it is under way: that goes on over the front, and so does the device
// when it is started again, where the address is closed altogether.
func TestABlockedGatewayIsReachedOverItsFront(t *testing.T) {
	way, other := openDoor(t), openDoor(t)
	listen := freePort(t)
	way.leadTo(listen)
	other.leadTo(listen)
	s := startServiceIn(t, []string{
		"HTTVPS_GATEWAY_LISTEN=" + listen, "HTTVPS_GATEWAY_URL=wss://" + way.ln.Addr().String() + "/tunnel",
		"HTTVPS_GATEWAY_FRONTS=wss://" + other.ln.Addr().String() + "/another",
	})
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	const size = 64 << 20
	conn, want := d.begin(far, size), mustSum(t, size)
	way.freeze()
	var longest time.Duration
	if err := receive(conn, size, want, &longest); err != nil {
		t.Error(err)
	}
	t.Logf("nothing came for %v", longest.Round(time.Millisecond))
	if soak && longest > 10*time.Second {
		t.Errorf("nothing came for %v, want 10s", longest)
	}
	if _, err := d.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	way.close()

	d.connect()
	if _, err := d.curl(far.URL() + "/1000"); err != nil {
		t.Error(err)
	}
}
