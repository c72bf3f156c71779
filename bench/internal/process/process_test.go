package process

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start("script", exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestLinesGoInAndComeOut(t *testing.T) {
	p := start(t, `read line; echo "$line"; cat >/dev/null`)
	if err := p.Send(map[string]int{"n": 7}); err != nil {
		t.Fatal(err)
	}
	var got struct{ N int }
	if err := p.Receive(t.Context(), &got); err != nil || got.N != 7 {
		t.Errorf("Receive = %v, %v", got, err)
	}
}

func TestAProcessThatEndedSaysWhy(t *testing.T) {
	p := start(t, `echo broken >&2; exit 3`)
	err := p.Receive(t.Context(), &struct{}{})
	if err == nil || !strings.Contains(err.Error(), "exit code 3") || !strings.Contains(err.Error(), "broken") {
		t.Errorf("Receive = %v", err)
	}
}

func TestReceivingEndsWithItsContext(t *testing.T) {
	p := start(t, `cat >/dev/null`)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Receive(ctx, &struct{}{}); err == nil {
		t.Error("no error")
	}
}

func TestStopEndsWhoListensToNothingButItsInput(t *testing.T) {
	p := start(t, `trap '' INT; cat >/dev/null`)
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.exited:
	default:
		t.Error("it goes on")
	}
}

func TestUsageIsThatOfTheProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what other processes use")
	}
	family, err := Family()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, `i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo '{}'; cat >/dev/null`)
	if err := p.Receive(t.Context(), &struct{}{}); err != nil {
		t.Fatal(err)
	}
	used, err := CPU(p.PID())
	if err != nil || used <= 0 {
		t.Errorf("CPU = %v, %v", used, err)
	}
	if resident, err := Resident(p.PID()); err != nil || resident < 4<<10 || resident > 1<<30 {
		t.Errorf("Resident = %d, %v", resident, err)
	}
	after, err := Family()
	if err != nil || after-family < used-2*tickForTests {
		t.Errorf("the family has used %v, %v, the process alone %v", after-family, err, used)
	}
	if busy, err := Busy(); err != nil || busy < after {
		t.Errorf("Busy = %v, %v, less than the %v of one family", busy, err, after)
	}
}

// tickForTests is the step in which the system counts.
const tickForTests = 10 * time.Millisecond
