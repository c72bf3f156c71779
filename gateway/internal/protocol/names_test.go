package protocol

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

func named(i int) wire.Addr { return wire.Addr{Name: fmt.Sprintf("n%d.example", i), Port: 4000} }

// asking has every look-up wait until the test answers it.
type asking struct {
	under, most, asked atomic.Int32
	answer             chan error // of the next look-up
}

func (a *asking) resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	a.asked.Add(1)
	a.most.Store(max(a.most.Load(), a.under.Add(1)))
	defer a.under.Add(-1)
	select {
	case err := <-a.answer:
		return []netip.AddrPort{addrPort(peerA)}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newAsking(r *flowRig) *asking {
	a := &asking{answer: make(chan error)}
	r.resolve = a.resolve
	return a
}

func TestALookupKeepsNoOtherDatagramWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		a := newAsking(r)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		r.Send(dgram(named(1), "1"), dgram(peerB, "beside"), dgram(named(1), "2"))
		synctest.Wait()
		if got := texts(s.taken()); !slices.Equal(got, []string{"beside to [2606:2800:220:1::1]:4001"}) {
			t.Errorf("sent %q beside a look-up", got)
		}
		a.answer <- nil
		synctest.Wait()
		if got := texts(s.taken()); !slices.Equal(got, []string{"1 to 93.184.216.34:4000", "2 to 93.184.216.34:4000"}) {
			t.Errorf("sent %q behind a look-up", got)
		}
		if a.asked.Load() != 1 {
			t.Errorf("%d look-ups for one name", a.asked.Load())
		}
		s.in <- packet{addrPort(peerA), []byte("answer")}
		r.wantDgram(t, wire.KindUDPAny, peerA, "answer")
		r.hangUp()
	})
}

func TestLookupsOfAFlowAndTheDatagramsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		a := newAsking(r)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		for i := range 50 {
			r.Send(dgram(named(i), "x"))
		}
		r.wantDropped(t, map[string]int{dropLookups: 50 - maxNameDatagrams})
		for range maxNameDatagrams {
			a.answer <- nil
			synctest.Wait()
		}
		if most, asked := a.most.Load(), a.asked.Load(); most != maxNameLookups || asked != maxNameDatagrams {
			t.Errorf("%d look-ups, %d at once; want %d, %d", asked, most, maxNameDatagrams, maxNameLookups)
		}
		if got := len(s.taken()); got != maxUnanswered { // all names have one address
			t.Errorf("%d datagrams were sent", got)
		}
		r.hangUp()
	})
}

func TestWhatALookupSaidIsGoodForAWhile(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		life    time.Duration
		dropped string
	}{
		"an address": {nil, nameLife, ""},
		"no address": {errLookup, nameFailureLife, dropDNS},
		"denied":     {failure("denied"), nameFailureLife, dropDenied},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFlowRig(t, nil)
				a := newAsking(r)
				r.openFlow(1, wire.KindUDPAny, wire.Addr{})
				r.Send(dgram(named(1), "x"))
				a.answer <- tc.err
				for range 2 {
					<-time.After(tc.life/2 - time.Millisecond)
					r.Send(dgram(named(1), "x"))
					synctest.Wait()
				}
				if a.asked.Load() != 1 {
					t.Error("asked again before its time")
				}
				want := map[string]int{}
				if tc.dropped != "" {
					want[tc.dropped] = 3
				}
				r.wantDropped(t, want)
				<-time.After(2 * time.Millisecond)
				r.Send(dgram(named(1), "x"))
				synctest.Wait()
				if a.asked.Load() != 2 {
					t.Error("not asked again")
				}
				r.hangUp()
			})
		})
	}
}

func TestALookupOfAFlowEndsInTimeAndTakesPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, func(s *Streams) { s.SessionDials = 1 })
		a := newAsking(r)
		r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		r.Send(dgram(named(1), "x"), dgram(named(2), "x"))
		synctest.Wait()
		if a.under.Load() != 1 || len(r.streams.Slots) != 1 {
			t.Errorf("%d look-ups with %d places, want 1 with 1", a.under.Load(), len(r.streams.Slots))
		}
		<-time.After(nameTimeout)
		r.wantDropped(t, map[string]int{dropDNS: 2})
		if a.under.Load() != 0 || len(r.streams.Slots) != 0 {
			t.Error("a look-up or a place is left")
		}
		r.hangUp()
	})
}

func TestTheEndOfAFlowEndsItsLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		a := newAsking(r)
		r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		for i := range 20 {
			r.Send(dgram(named(i), "x"))
		}
		synctest.Wait()
		r.Send(wire.AppendReset(nil, 1, wire.CodeNoError))
		synctest.Wait()
		if a.under.Load() != 0 || a.asked.Load() != maxNameLookups || r.meter.streams.Load() != 0 {
			t.Errorf("%d look-ups are under way, %d were begun", a.under.Load(), a.asked.Load())
		}
		r.hangUp()
	})
}

func TestTheNextAddressOfANameIsUsedWhereThereIsNoWayToTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		r.resolve = func(context.Context, wire.Addr) ([]netip.AddrPort, error) {
			return []netip.AddrPort{netip.MustParseAddrPort("[2001:4860::1]:1"), addrPort(peerA)}, nil
		}
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		s.mu.Lock()
		s.noWay = netip.MustParseAddr("2001:4860::1")
		s.mu.Unlock()
		r.Send(dgram(named(1), "x"))
		synctest.Wait()
		if got := texts(s.taken()); !slices.Equal(got, []string{"x to 93.184.216.34:4000"}) {
			t.Errorf("sent %q", got)
		}
		r.wantDropped(t, map[string]int{})
		r.hangUp()
	})
}

func TestTheNamesThatAFlowRemembersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		f := &flow{dropped: r.streams.Dropped}
		n := newNames(f, dialer{})
		n.lookups = maxNameLookups // nobody begins to ask
		for i := range 3 * maxNames {
			if n.answer(t.Context(), named(i), []byte("x")) != nil {
				t.Fatal("an answer out of nothing")
			}
			n.learn(n.known[named(i)], nil, errLookup)
			n.queue = nil
		}
		if len(n.known) != maxNames {
			t.Errorf("%d names are known, want %d", len(n.known), maxNames)
		}
		<-time.After(nameFailureLife)
		n.answer(t.Context(), named(-1), nil)
		if len(n.known) != 1 {
			t.Errorf("%d names are known after all have expired, want the new one", len(n.known))
		}
		r.hangUp()
	})
}
