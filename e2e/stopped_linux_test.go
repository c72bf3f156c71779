package e2e

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/httvps/httvps/test/sstest"
)

// stop has a device's process do nothing for so long, as a machine that sleeps.
func (d *device) stop(long time.Duration) {
	d.t.Helper()
	if err := syscall.Kill(d.proc.PID(), syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	<-time.After(long)
	if err := syscall.Kill(d.proc.PID(), syscall.SIGCONT); err != nil {
		d.t.Fatal(err)
	}
}

func TestADeviceThatSleptGoesOnWhereItWas(t *testing.T) {
	long, most := 12*time.Second, 20*time.Second
	if soak { // what is promised is measured where nothing else runs
		long, most = 30*time.Second, 2*time.Second
	}
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	quiet := d.open(sstest.ServeTCP(t, sstest.Echo).String())
	if err := echo(quiet); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	conn, want := d.begin(far, size), mustSum(t, size)
	d.stop(long)
	woke := time.Now()
	if err := echo(quiet); err != nil {
		t.Error(err)
	}
	took := time.Since(woke)
	t.Logf("stopped for %v, goes on within %v", long, took.Round(time.Millisecond))
	if took > most {
		t.Errorf("goes on after %v, want %v", took, most)
	}
	var longest time.Duration
	if err := receive(conn, size, want, &longest); err != nil {
		t.Error(err)
	}
}

func TestADeviceThatSleptForTooLongBeginsAnew(t *testing.T) {
	env, long, most := []string{"HTTVPS_GATEWAY_LIMITS_RESUME=1s", "HTTVPS_GATEWAY_LIMITS_SILENCE=10s"}, 15*time.Second, 30*time.Second
	if soak { // what is promised is measured where nothing else runs
		env, long, most = nil, 10*time.Minute, 3*time.Second
	}
	s := startServiceIn(t, env)
	d := enroll(t, s.Invite)
	d.connect()
	target := sstest.ServeTCP(t, sstest.Echo).String()
	old := d.open(target)
	if err := echo(old); err != nil {
		t.Fatal(err)
	}
	d.stop(long)
	woke := time.Now()
	if err := echo(d.open(target)); err != nil {
		t.Error(err)
	}
	took := time.Since(woke)
	t.Logf("stopped for %v, a new connection works within %v", long, took.Round(time.Millisecond))
	if took > most {
		t.Errorf("a new connection works after %v, want %v", took, most)
	}
	if err := echo(old); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the connection from before: %v, want its end", err)
	}
	if said := d.proc.Log(); !strings.Contains(said, "session_unknown: the gateway no longer has it") {
		t.Errorf("httvps connect does not say that the session has ended:\n%s", said)
	}
}
