package sessions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

func add(t *testing.T, r *Registry, id, device byte) *Session {
	t.Helper()
	s, err := r.Add(ID{id}, Device{device}, Term{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ending reports why s must end, or that it need not.
func ending(s *Session) (wire.Code, bool) {
	var code wire.Code
	must := false
	s.OnEnd(func(why wire.Code) { code, must = why, true })
	select {
	case <-s.Ending():
		return code, must
	default:
		return 0, false
	}
}

func TestASessionEndsForTheFirstReason(t *testing.T) {
	r := New(10, Leaving{}, nil)
	s := add(t, r, 1, 1)
	if _, must := ending(s); must {
		t.Error("a new session must end")
	}
	if !r.End(s.ID, wire.CodeDeviceRevoked) || !r.End(s.ID, wire.CodeShutdown) {
		t.Error("End does not know a live session")
	}
	if code, must := ending(s); !must || code != wire.CodeDeviceRevoked {
		t.Errorf("ends with %v, %v", code, must)
	}
	if r.End(ID{9}, wire.CodeShutdown) {
		t.Error("End knows a session that is none")
	}
}

func TestEndDeviceEndsTheSessionsOfThatDeviceOnly(t *testing.T) {
	r := New(10, Leaving{}, nil)
	mine, also, other := add(t, r, 1, 1), add(t, r, 2, 1), add(t, r, 3, 2)
	if n := r.EndDevice(Device{1}, wire.CodeUserDisabled, time.Time{}); n != 2 {
		t.Errorf("EndDevice = %d, want 2", n)
	}
	for _, s := range []*Session{mine, also} {
		if code, must := ending(s); !must || code != wire.CodeUserDisabled {
			t.Errorf("session %s ends with %v, %v", s.ID, code, must)
		}
	}
	if _, must := ending(other); must {
		t.Error("another device's session ends")
	}
	r.Remove(mine)
	r.Remove(also)
	if n := r.EndDevice(Device{1}, wire.CodeUserDisabled, time.Time{}); n != 0 || len(r.devices) != 1 {
		t.Errorf("EndDevice = %d after the device's sessions were removed, %d devices", n, len(r.devices))
	}
}

func TestTheSessionsOfADeviceShareItsSpeeds(t *testing.T) {
	r := New(10, Leaving{}, nil)
	first, second, other := add(t, r, 1, 1), add(t, r, 2, 1), add(t, r, 3, 2)
	if first.Speeds != second.Speeds || first.Speeds == other.Speeds {
		t.Error("speeds are not those of a device")
	}
	r.Remove(first)
	if add(t, r, 4, 1).Speeds != second.Speeds {
		t.Error("the device has other speeds, though it was never away")
	}
}

func TestTheRegistryIsBounded(t *testing.T) {
	r := New(2, Leaving{}, nil)
	first := add(t, r, 1, 1)
	add(t, r, 2, 1)
	if _, err := r.Add(ID{3}, Device{1}, Term{}); !errors.Is(err, ErrFull) {
		t.Errorf("Add = %v, want ErrFull", err)
	}
	r.Remove(first)
	add(t, r, 3, 1)
	if _, err := r.Add(ID{3}, Device{1}, Term{}); err == nil || r.Len() != 2 {
		t.Errorf("Add = %v with %d sessions", err, r.Len())
	}
}

func TestAStoppingRegistryTakesNoSession(t *testing.T) {
	r := New(2, Leaving{}, nil)
	s := add(t, r, 1, 1)
	r.Stop()
	if _, must := ending(s); must || !r.Stopping() {
		t.Error("Stop ended a session, or is not known")
	}
	if _, err := r.Add(ID{2}, Device{1}, Term{}); !errors.Is(err, ErrStopping) {
		t.Errorf("Add = %v, want ErrStopping", err)
	}
	r.EndAll(wire.CodeShutdown)
	if code, must := ending(s); !must || code != wire.CodeShutdown {
		t.Errorf("ends with %v, %v", code, must)
	}
}

func TestASessionWhoseTermIsNotRenewedEndsForTheReasonGiven(t *testing.T) {
	for _, why := range []wire.Code{wire.CodeSubscriptionExpired, wire.CodeRetryLater} {
		synctest.Test(t, func(t *testing.T) {
			r := New(2, Leaving{}, nil)
			began := time.Now()
			s, err := r.Add(ID{1}, Device{1}, Term{
				Until: began.Add(36 * time.Hour),
				Renew: func(context.Context) (time.Time, wire.Code) { return time.Time{}, why },
			})
			if err != nil {
				t.Fatal(err)
			}
			s.KeepTerm(t.Context())
			if code, must := ending(s); !must || code != why || time.Since(began) != 36*time.Hour {
				t.Errorf("ended as %v, %v, after %v, want %v after 36h", code, must, time.Since(began), why)
			}
		})
	}
}

func TestASessionGoesOnWithItsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ends := []time.Time{
			began.Add(3 * time.Hour), // extended
			began.Add(3 * time.Hour), // a control plane whose clock is behind
			{},                       // followed by one without an end
		}
		var asked []time.Duration
		s, err := New(2, Leaving{}, nil).Add(ID{1}, Device{1}, Term{
			Until: began.Add(time.Hour),
			Renew: func(context.Context) (time.Time, wire.Code) {
				asked = append(asked, time.Since(began))
				return ends[len(asked)-1], wire.CodeNoError
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Hour)
		defer cancel()
		s.KeepTerm(ctx)
		if want := []time.Duration{time.Hour, 3 * time.Hour, 3*time.Hour + renewPause}; !slices.Equal(asked, want) {
			t.Errorf("asked after %v, want %v", asked, want)
		}
		if code, must := ending(s); must {
			t.Errorf("ends as %v", code)
		}
	})
}

// A review finds that the end is another one: sooner than it was, or at all.
func TestAReviewMovesTheEndOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ends := []time.Time{began.Add(2 * time.Hour), began.Add(time.Hour)}
		var asked atomic.Int64
		s, err := New(2, Leaving{}, nil).Add(ID{1}, Device{1}, Term{
			Renew: func(context.Context) (time.Time, wire.Code) {
				n := int(asked.Add(1))
				if n > len(ends) {
					return time.Time{}, wire.CodeSubscriptionExpired
				}
				return ends[n-1], wire.CodeNoError
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range ends {
			time.AfterFunc(time.Duration(i+1)*time.Minute, func() { s.Review(t.Context()) })
		}
		s.KeepTerm(t.Context())
		if code, must := ending(s); !must || code != wire.CodeSubscriptionExpired || time.Since(began) != time.Hour {
			t.Errorf("ended as %v, %v, after %v, want after an hour", code, must, time.Since(began))
		}
		select {
		case <-s.Changed():
		default:
			t.Error("its device need not be told")
		}
	})
}

func TestALaterOfferCounts(t *testing.T) {
	r := New(10, Leaving{}, nil)
	s := add(t, r, 1, 1)
	now := time.Now()
	s.Offer(now, 10, 5)
	s.Offer(now.Add(-time.Second), 20, 6)
	if offer, _ := s.Offered(); offer.MaxStreams != 10 || offer.MaxUDP != 5 {
		t.Errorf("offered %+v", offer)
	}
	s.Offer(now.Add(time.Second), 30, 7)
	if offer, _ := s.Offered(); offer.MaxStreams != 30 || offer.MaxUDP != 7 {
		t.Errorf("offered %+v", offer)
	}
}

func TestTheTermOfAnEndedSessionIsNotRenewed(t *testing.T) {
	for name, end := range map[string]func(*Session, context.CancelFunc){
		"it must end":  func(s *Session, _ context.CancelFunc) { s.End(wire.CodeShutdown) },
		"it has ended": func(_ *Session, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, err := New(2, Leaving{}, nil).Add(ID{1}, Device{1}, Term{
					Until: time.Now().Add(time.Hour),
					Renew: func(context.Context) (time.Time, wire.Code) {
						t.Error("asked for a session that is over")
						return time.Time{}, wire.CodeNoError
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Minute, func() { end(s, cancel) })
				s.KeepTerm(ctx)
			})
		})
	}
}

func TestBytesAreCountedOnceForTheSessionAndForAll(t *testing.T) {
	r := New(10, Leaving{}, nil)
	a, b := add(t, r, 1, 1), add(t, r, 2, 1)
	var counting sync.WaitGroup
	for _, s := range []*Session{a, b} {
		for range 8 {
			counting.Go(func() {
				for range 1000 {
					s.AddUp(3)
					s.AddDown(5)
				}
			})
		}
	}
	counting.Wait()
	a.AddStreams(2)
	b.AddStreams(1)
	if a.Up() != 24_000 || b.Down() != 40_000 || r.Total().Up() != 48_000 || r.Total().Down() != 80_000 || r.Streams() != 3 {
		t.Errorf("counted %d %d %d %d, %d streams", a.Up(), b.Down(), r.Total().Up(), r.Total().Down(), r.Streams())
	}
	r.Remove(a)
	if r.Total().Up() != 48_000 || r.Streams() != 1 {
		t.Errorf("after the session's end %d bytes up, %d streams", r.Total().Up(), r.Streams())
	}
}

func TestADeviceLeavesOnlySoMuchBehind(t *testing.T) {
	type left struct {
		device  byte
		bytes   uint64
		streams int
	}
	for name, tc := range map[string]struct {
		left []left
		cut  []byte // ids, which begin with 1
	}{
		"one is never judged":       {[]left{{1, 500, 50}}, nil},
		"within the limits":         {[]left{{1, 60, 6}, {1, 40, 4}, {1, 99, 9}}, nil},
		"too many bytes":            {[]left{{1, 60, 0}, {1, 60, 0}, {1, 60, 0}, {1, 60, 0}}, []byte{1, 2}},
		"too many streams":          {[]left{{1, 0, 6}, {1, 0, 6}, {1, 0, 6}}, []byte{1}},
		"one that is large":         {[]left{{1, 10, 0}, {1, 500, 0}, {1, 10, 0}, {1, 10, 0}}, []byte{1, 2}},
		"those of others":           {[]left{{1, 60, 6}, {2, 60, 6}, {1, 60, 6}, {3, 60, 6}}, nil},
		"others keep theirs anyway": {[]left{{2, 60, 0}, {1, 60, 0}, {1, 60, 0}, {2, 1, 0}, {1, 60, 0}}, []byte{2}},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(10, Leaving{Bytes: 100, Streams: 10}, nil)
			var all []*Session
			for i, l := range tc.left {
				s := add(t, r, byte(i+1), l.device)
				s.AddStreams(l.streams)
				r.Leave(s, func() uint64 { return l.bytes })
				all = append(all, s)
			}
			var cut []byte
			for _, s := range all {
				if why, must := ending(s); must {
					cut = append(cut, s.ID[0])
					if why != wire.CodeLimit {
						t.Errorf("session %d ends with %v", s.ID[0], why)
					}
				}
				r.Remove(s)
			}
			if !slices.Equal(cut, tc.cut) {
				t.Errorf("sessions %v have to end, want %v", cut, tc.cut)
			}
			if len(r.left) != 0 || len(r.devices) != 0 {
				t.Errorf("%d devices are remembered", len(r.left)+len(r.devices))
			}
		})
	}
}

func TestAnotherLimitLeavesWhoIsThere(t *testing.T) {
	r := New(2, Leaving{}, nil)
	add(t, r, 1, 1)
	add(t, r, 2, 1)
	r.Limit(1)
	if _, err := r.Add(ID{3}, Device{1}, Term{}); !errors.Is(err, ErrFull) || r.Len() != 2 {
		t.Errorf("Add = %v, %d sessions", err, r.Len())
	}
	r.Limit(3)
	add(t, r, 3, 1)
}
