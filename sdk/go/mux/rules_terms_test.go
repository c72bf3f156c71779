package mux_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// heard is what a session was told by frames of docs/03, part 8.5.
type heard struct {
	reauths []wire.Reauth
	auths   []wire.Auth
	limits  []wire.SessionTerms
	notices []wire.Notice
}

func (h *heard) terms() *mux.Terms {
	return &mux.Terms{
		OnReauth: func(r wire.Reauth) { h.reauths = append(h.reauths, r) },
		OnAuth:   func(a wire.Auth) { h.auths = append(h.auths, a) },
		OnLimits: func(l wire.SessionTerms) { h.limits = append(h.limits, l) },
		OnNotice: func(n wire.Notice) { h.notices = append(h.notices, n) },
	}
}

// scriptedTerms is scripted for a session whose ends know the frames of part 8.5.
func scriptedTerms(t *testing.T, role mux.Role, limits wire.Limits) (*mux.Session, *heard, *muxtest.Peer) {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	h := &heard{}
	s := start(t, ours, mux.Config{Role: role, Limits: limits, Terms: h.terms(), Resume: mux.Resume{Within: time.Minute}})
	peer := muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return s, h, peer
}

// wantFrame is Want over ACKs.
func wantFrame(tb testing.TB, peer *muxtest.Peer, kind wire.FrameType) []byte {
	tb.Helper()
	for {
		if f := peer.Next(); f.Type == kind {
			return f.Payload
		} else if f.Type != wire.TypeAck {
			tb.Fatalf("peer: got %v for stream %d, want %v", f.Type, f.Stream, kind)
		}
	}
}

var reauth = wire.Reauth{AccessToken: "another", Signature: [64]byte{1}}

func TestAReauthGetsOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, peer := scriptedTerms(t, mux.Client, wire.DefaultLimits())
		if err := s.Reauth(reauth); err != nil {
			t.Fatal(err)
		}
		if err := s.Reauth(reauth); !errors.Is(err, mux.ErrReauthUnderway) {
			t.Errorf("a second REAUTH: %v", err)
		}
		r, err := wire.ParseReauth(peer.Want(wire.TypeReauth, 0))
		if err != nil || r.AccessToken != reauth.AccessToken || r.Signature != reauth.Signature {
			t.Errorf("REAUTH %+v, %v", r, err)
		}
		until := time.UnixMilli(1700000000000)
		peer.Send(wire.AppendAuth(nil, wire.Auth{Deadline: until}))
		synctest.Wait()
		if len(h.auths) != 1 || h.auths[0].Code != wire.CodeNoError || !h.auths[0].Deadline.Equal(until) {
			t.Errorf("heard %+v", h.auths)
		}
		if err := s.Reauth(reauth); err != nil {
			t.Errorf("a REAUTH after the answer: %v", err)
		}
		wantFrame(t, peer, wire.TypeReauth)
		peer.Send(wire.AppendAuth(nil, wire.Auth{}), wire.AppendAuth(nil, wire.Auth{}))
		peer.WantClose(wire.CodeProtocol)
	})
}

func TestAGatewayTakesOneReauthAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, peer := scriptedTerms(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(wire.AppendReauth(nil, reauth))
		synctest.Wait()
		if len(h.reauths) != 1 || h.reauths[0].AccessToken != reauth.AccessToken {
			t.Fatalf("heard %+v", h.reauths)
		}
		if err := s.AnswerReauth(wire.Auth{Code: wire.CodeInvalidToken}); err != nil {
			t.Fatal(err)
		}
		a, err := wire.ParseAuth(wantFrame(t, peer, wire.TypeAuth))
		if err != nil || a.Code != wire.CodeInvalidToken {
			t.Errorf("AUTH %+v, %v", a, err)
		}
		peer.Send(wire.AppendReauth(nil, reauth), wire.AppendReauth(nil, reauth))
		peer.WantClose(wire.CodeProtocol)
	})
}

// What changes a session is part of its history: a carrier that breaks loses none of it.
func TestAReauthIsSentAgainOnTheNextCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, peer := scriptedTerms(t, mux.Client, wire.DefaultLimits())
		if err := s.Reauth(reauth); err != nil {
			t.Fatal(err)
		}
		peer.Want(wire.TypeReauth, 0) // and nothing is acknowledged
		peer.Close()
		_, peer = goOn(t, s, 0)
		peer.Want(wire.TypeReauth, 0)
		peer.Send(wire.AppendAuth(nil, wire.Auth{}))
		synctest.Wait()
		if len(h.auths) != 1 {
			t.Errorf("heard %+v", h.auths)
		}
	})
}

func TestLimitsThatRiseLetMoreStreamsOpenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.MaxUDP = 1, 0
		s, h, peer := scriptedTerms(t, mux.Client, limits)
		opened := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := s.Open(t.Context(), target)
				opened <- err
			}()
		}
		peer.WantOpen(1)
		peer.WantQuiet()
		if _, err := s.OpenFlow(t.Context(), wire.KindUDP, target); err == nil {
			t.Error("a flow is opened that is not served")
		}
		limits.MaxStreams, limits.MaxUDP = 4, 1
		peer.Send(wire.AppendLimits(nil, wire.SessionTerms{Limits: limits}))
		wantFrame(t, peer, wire.TypeOpen)
		wantFrame(t, peer, wire.TypeOpen)
		if _, err := s.OpenFlow(t.Context(), wire.KindUDP, target); err != nil {
			t.Errorf("a flow that is served now: %v", err)
		}
		wantFrame(t, peer, wire.TypeOpen)
		if len(h.limits) != 1 || h.limits[0].Limits != limits {
			t.Errorf("heard %+v", h.limits)
		}
		for id := uint64(1); id <= 5; id += 2 {
			peer.Send(wire.AppendOpened(nil, id, wire.Opened{RecvWindow: 1 << 20}))
			if err := <-opened; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestLimitsThatFallLeaveOpenStreamsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 3
		s, _, peer := scriptedTerms(t, mux.Client, limits)
		var streams []*mux.Stream
		for id := uint64(1); id <= 5; id += 2 {
			go func() {
				wantFrame(t, peer, wire.TypeOpen)
				peer.Send(wire.AppendOpened(nil, id, wire.Opened{RecvWindow: 1 << 20}))
			}()
			st, err := s.Open(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, st)
		}
		limits.MaxStreams = 1
		peer.Send(wire.AppendLimits(nil, wire.SessionTerms{Limits: limits}))
		synctest.Wait()
		if n := s.Streams(); n != 3 {
			t.Errorf("%d streams", n)
		}
		for i, st := range streams {
			st.Reset(wire.CodeCancelled)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := s.Open(ctx, target)
			cancel()
			if waited := errors.Is(err, context.DeadlineExceeded); !waited {
				t.Errorf("an open while %d of 1 are open: %v", len(streams)-1-i, err)
			}
			peer.Drain()
			if n := s.Streams(); i < 2 && n != 2-i {
				t.Errorf("%d streams after %d have ended", n, i+1)
			}
		}
	})
}

// A gateway that allows less takes what was on its way: the client keeps to the number that
// it knows.
func TestAGatewayThatAllowsLessTakesWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 2
		s, _, peer := scriptedTerms(t, mux.Gateway, limits)
		less := limits
		less.MaxStreams, less.MaxUDP = 1, 0
		if err := s.SetTerms(wire.SessionTerms{Limits: less}); err != nil {
			t.Fatal(err)
		}
		told, err := wire.ParseLimits(wantFrame(t, peer, wire.TypeLimits))
		if err != nil || told.Limits != less {
			t.Errorf("LIMITS %+v, %v", told, err)
		}
		peer.Send(appendOpen(1, ""), appendOpen(3, ""))
		synctest.Wait()
		if n := s.Streams(); n != 2 {
			t.Errorf("%d streams are taken, want 2", n)
		}
		<-time.After(5 * time.Second)
		peer.Send(wire.AppendReset(nil, 1, wire.CodeCancelled), appendOpen(5, ""))
		peer.Send(wire.AppendOpen(nil, 7, wire.Open{Kind: wire.KindUDP, Target: target}))
		synctest.Wait()
		for _, want := range []struct {
			id   uint64
			code wire.Code
		}{{5, wire.CodeLimit}, {7, wire.CodeUnsupported}} {
			f := peer.Next()
			for f.Type == wire.TypeAck {
				f = peer.Next()
			}
			if code, err := wire.ParseReset(f.Payload); f.Type != wire.TypeReset || f.Stream != want.id || code != want.code {
				t.Errorf("%v(%v), %v for stream %d, want RESET(%v) for %d", f.Type, code, err, f.Stream, want.code, want.id)
			}
		}
	})
}

func TestAGatewayAllowsNoMoreThanItsBudgetHasFloorsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 10
		s, _, peer := scriptedTerms(t, mux.Gateway, limits)
		more := limits
		more.MaxStreams, more.Silence, more.EarlyWindow = 1000, time.Hour, 1
		if err := s.SetTerms(wire.SessionTerms{Limits: more}); err != nil {
			t.Fatal(err)
		}
		told, err := wire.ParseLimits(wantFrame(t, peer, wire.TypeLimits))
		limits.MaxStreams = mux.DefaultBudget / 4 / limits.EarlyWindow
		if err != nil || told.Limits != limits {
			t.Errorf("LIMITS %+v, %v, want %+v", told.Limits, err, limits)
		}
	})
}

func TestEarlyWindowAndSilenceStayWhatReadyTold(t *testing.T) {
	for name, change := range map[string]func(*wire.Limits){
		"early_window": func(l *wire.Limits) { l.EarlyWindow-- },
		"silence":      func(l *wire.Limits) { l.Silence += time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := wire.DefaultLimits()
				_, _, peer := scriptedTerms(t, mux.Client, limits)
				change(&limits)
				peer.Send(wire.AppendLimits(nil, wire.SessionTerms{Limits: limits}))
				peer.WantClose(wire.CodeProtocol)
			})
		})
	}
}

func TestNoticesThatWaitAreBoundedAndTheLatestAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, peer := scriptedTerms(t, mux.Gateway, wire.DefaultLimits())
		peer.Close()
		synctest.Wait()
		for left := range uint64(20) {
			if err := s.Notify(wire.Notice{Code: wire.CodeQuotaExceeded, Left: left, Quota: 100}); err != nil {
				t.Fatal(err)
			}
		}
		_, peer = goOn(t, s, 0)
		for want := uint64(12); want < 20; want++ {
			n, err := wire.ParseNotice(wantFrame(t, peer, wire.TypeNotice))
			if err != nil || n.Left != want {
				t.Errorf("NOTICE %+v, %v, want %d left", n, err, want)
			}
		}
		peer.WantQuiet()
	})
}

func TestFramesOfTermsFromTheWrongEndEndTheSession(t *testing.T) {
	for name, tc := range map[string]struct {
		role  mux.Role
		frame []byte
	}{
		"REAUTH from the gateway": {mux.Client, wire.AppendReauth(nil, reauth)},
		"AUTH from the client":    {mux.Gateway, wire.AppendAuth(nil, wire.Auth{})},
		"LIMITS from the client":  {mux.Gateway, wire.AppendLimits(nil, wire.SessionTerms{Limits: wire.DefaultLimits()})},
		"NOTICE from the client":  {mux.Gateway, wire.AppendNotice(nil, wire.Notice{})},
		"AUTH that nobody wanted": {mux.Client, wire.AppendAuth(nil, wire.Auth{})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, peer := scriptedTerms(t, tc.role, wire.DefaultLimits())
				peer.Send(tc.frame)
				peer.WantClose(wire.CodeProtocol)
			})
		})
	}
}

func TestWithoutTheCapabilityTermsAreUnknownFrames(t *testing.T) {
	for name, tc := range map[string]struct {
		role  mux.Role
		frame []byte
		ends  bool
	}{
		"REAUTH": {mux.Gateway, wire.AppendReauth(nil, reauth), true},
		"AUTH":   {mux.Client, wire.AppendAuth(nil, wire.Auth{}), true},
		"LIMITS": {mux.Client, wire.AppendLimits(nil, wire.SessionTerms{Limits: wire.DefaultLimits()}), true},
		"NOTICE": {mux.Client, wire.AppendFrame(nil, wire.TypeNotice, 0, []byte("whatever")), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scripted(t, tc.role, wire.DefaultLimits())
				peer.Send(tc.frame)
				if tc.ends {
					peer.WantClose(wire.CodeUnsupported)
					return
				}
				synctest.Wait()
				if err := s.Err(); err != nil {
					t.Errorf("the session ended: %v", err)
				}
				if s.Reauth(reauth) == nil || s.Notify(wire.Notice{}) == nil || s.SetTerms(wire.SessionTerms{}) == nil {
					t.Error("something is sent that the other end does not know")
				}
				peer.WantQuiet()
			})
		})
	}
}

// Whoever gives up waiting for a place leaves it to the next, and a place that comes at
// the same moment is not lost.
func TestPlacesGoToThoseWhoStillWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 1
		client, gateway := pair(t, limits)
		first, _ := open(t, client, gateway)
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := client.Open(ctx, target)
			given <- err
		}()
		synctest.Wait()
		second := make(chan struct{})
		go func() {
			defer close(second)
			open(t, client, gateway)
		}()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
		first.Reset(wire.CodeCancelled)
		<-second
		if n := client.Streams(); n != 1 {
			t.Errorf("%d places are taken", n)
		}
	})
}
