package blackhole

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDialsAreCountedAndNeverAnswered(t *testing.T) {
	b, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	const dials = 5
	ctx, cancel := context.WithCancel(t.Context())
	var dialing sync.WaitGroup
	for range dials {
		dialing.Go(func() {
			var d net.Dialer
			if conn, err := d.DialContext(ctx, "tcp", b.Address()); err == nil {
				conn.Close()
				t.Error("it answered")
			}
		})
	}
	most, tick := 0, time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); most < dials && time.Now().Before(end); <-tick.C {
		n, err := b.Dials()
		if err != nil {
			t.Error(err)
		}
		most = max(most, n)
	}
	cancel()
	dialing.Wait()
	if most != dials {
		t.Errorf("%d dials were counted, want %d", most, dials)
	}
}
