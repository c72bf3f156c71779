package httvpstest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// tunnel is a gateway.
func (s *Service) tunnel(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.PathValue("gateway"))
	if err != nil || number < 0 || number >= s.opts.Gateways || !s.knocked(r) || !carrier.IsUpgrade(r) {
		w.Header().Set("Date", s.gatewayTime().UTC().Format(http.TimeFormat))
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.wg.Add(1) // the server started the goroutine
	s.mu.Unlock()
	defer s.wg.Done()

	conn, err := carrier.Upgrade(w, r)
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(wire.HelloTimeout))
	ready, hello, rest, outcome := s.handshake(conn, number, r.Host)
	if outcome == resumed {
		return // the carrier is its session's
	}
	defer func() { _ = conn.Close() }()
	if outcome == refused {
		return
	}
	// The session is on the list before the client knows that it has one.
	cfg := mux.Config{Role: mux.Gateway, Limits: ready.Limits, First: rest}
	cfg.Resume.Within = ready.ResumeWindow
	cfg.Drain.Agreed = ready.Capabilities.Has(wire.Drain)
	on := &live{service: s, gateway: number, ready: ready, hello: hello}
	if ready.Capabilities.Has(wire.Padding) {
		cfg.Padding = s.opts.Padding
	}
	if ready.Capabilities.Has(wire.Terms) {
		cfg.Terms = &mux.Terms{OnReauth: on.reauth}
	}
	session := mux.New(conn, cfg)
	on.begin(session)
	defer on.end()
	if ready.ResumeWindow > 0 {
		s.keep(session, conn, ready)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.sessions[session] = on
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, session)
		delete(s.kept, ready.SessionID)
		s.mu.Unlock()
	}()
	if conn.WriteMessage(wire.AppendReady(nil, ready)) != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})

	var streams sync.WaitGroup
	streams.Go(func() { s.accept(session, &streams) })
	_ = session.Run(context.Background())
	streams.Wait()
}

// gatewayTime is what the gateways' clock shows.
func (s *Service) gatewayTime() time.Time { return time.Now().Add(s.opts.GatewaysAhead) }

// knocked reports whether a request carries a valid knock.
func (s *Service) knocked(r *http.Request) bool {
	cookie, err := r.Cookie(knock.DefaultCookie)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return knock.Verify(s.knocks, r.Host, cookie.Value, s.gatewayTime())
}

// outcome is what became of a carrier.
type outcome int

const (
	refused  outcome = iota
	admitted         // a READY is to be sent
	resumed          // a session goes on over it
)

// handshake is the gateway's side of part 5 of the protocol document, up to the
// READY that is to be sent.
func (s *Service) handshake(conn *carrier.Conn, number int, host string) (ready wire.Ready, hello wire.Hello, rest []byte, _ outcome) {
	challenge := wire.Challenge{Time: time.Now(), Capabilities: wire.Capabilities(0).With(wire.Drain)}
	_, _ = rand.Read(challenge.Nonce[:]) // never fails (crypto/rand)
	if !s.opts.NoBinding {
		challenge.Capabilities = challenge.Capabilities.With(wire.ChannelBinding)
	}
	if s.opts.Resume > 0 {
		challenge.Capabilities = challenge.Capabilities.With(wire.Resume)
	}
	if !s.opts.NoTerms {
		challenge.Capabilities = challenge.Capabilities.With(wire.Terms)
	}
	if s.opts.Padding != nil {
		challenge.Capabilities = challenge.Capabilities.With(wire.Padding)
	}
	if conn.WriteMessage(wire.AppendChallenge(nil, challenge)) != nil {
		return ready, hello, nil, refused
	}
	msg, err := conn.ReadMessage(nil)
	if err != nil {
		return ready, hello, nil, refused
	}
	frame, rest, err := wire.ConsumeFrame(msg)
	if err == nil && frame.Type == wire.TypeResume && s.opts.Resume > 0 {
		if s.resume(conn, frame, rest, challenge) {
			return ready, hello, nil, resumed
		}
		_ = conn.WriteMessage(wire.AppendReject(nil, wire.Reject{Code: wire.CodeSessionUnknown}))
		if msg, err = conn.ReadMessage(nil); err != nil {
			return ready, hello, nil, refused
		}
		frame, rest, err = wire.ConsumeFrame(msg)
	}
	if err == nil {
		hello, err = wire.ParseHello(frame.Payload)
	}
	if err != nil || frame.Type != wire.TypeHello {
		_ = conn.WriteMessage(wire.AppendClose(nil, wire.Close{Code: wire.CodeProtocol}))
		return ready, hello, nil, refused
	}
	if reject := s.judge(conn, number, host, challenge, hello); reject.Code != wire.CodeNoError {
		_ = conn.WriteMessage(wire.AppendReject(nil, reject))
		_, _ = conn.ReadMessage(nil) // until the client has read it and left
		return ready, hello, nil, refused
	}
	ready = wire.Ready{Capabilities: hello.Capabilities, Time: s.gatewayTime(), Limits: wire.DefaultLimits()}
	s.mu.Lock()
	for i := range s.fronts {
		ready.Fronts = append(ready.Fronts, s.Front(number, i))
	}
	s.mu.Unlock()
	if hello.Capabilities.Has(wire.Padding) {
		ready.PaddingPolicy = *s.opts.Padding
	}
	if s.opts.NoUDP {
		ready.Limits.MaxUDP = 0
	}
	if s.opts.EndWithToken {
		ready.AuthDeadline = s.expiry(hello.AccessToken)
	}
	_, _ = rand.Read(ready.SessionID[:]) // never fails (crypto/rand)
	if hello.Capabilities.Has(wire.Resume) {
		ready.ResumeWindow = s.opts.Resume
		_, _ = rand.Read(ready.ResumeSecret[:])
	}
	return ready, hello, rest, admitted
}

// judge says whether the device may have a session.
func (s *Service) judge(conn *carrier.Conn, number int, host string, challenge wire.Challenge, hello wire.Hello) wire.Reject {
	var binding []byte
	if hello.Capabilities.Has(wire.ChannelBinding) {
		var err error
		if binding, err = conn.ExportKeyingMaterial(); err != nil {
			return wire.Reject{Code: wire.CodeInternal}
		}
	}
	s.mu.Lock()
	g, known := s.tokens[hello.AccessToken]
	key := s.devices[g.device]
	s.mu.Unlock()
	input := hello.SigningInput(challenge.Nonce, host, binding)
	if !known || !key.Equal(ed25519.PublicKey(hello.DeviceKey[:])) ||
		hex.EncodeToString(hello.DeviceID[:]) != strings.ReplaceAll(g.device, "-", "") ||
		hello.Capabilities != challenge.Capabilities ||
		!ed25519.Verify(key, input, hello.Signature[:]) {
		return wire.Reject{Code: wire.CodeInvalidToken}
	}
	if !time.Now().Before(g.expires) && (s.opts.Lenient == nil || !s.opts.Lenient(number)) {
		return wire.Reject{Code: wire.CodeTokenExpired}
	}
	if s.opts.Admit != nil {
		return s.opts.Admit(number, hello)
	}
	return wire.Reject{}
}

func (s *Service) accept(session *mux.Session, streams *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // dials of a session that is over
	for {
		in, err := session.Accept(ctx)
		if err != nil {
			return
		}
		if in.Flow != nil {
			streams.Go(func() { s.forwardFlow(in.Flow) })
			continue
		}
		streams.Go(func() { s.forward(ctx, in.Stream) })
	}
}

// forward connects a stream to its target.
func (s *Service) forward(ctx context.Context, stream *mux.Stream) {
	target, err := s.opts.Dial(ctx, stream.Target())
	if err != nil {
		code := wire.CodeConnRefused
		if refused, ok := errors.AsType[*mux.StreamError](err); ok {
			code = refused.Code
		}
		stream.Reset(code)
		return
	}
	defer func() { _ = target.Close() }()
	if stream.Confirm() != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		if _, err := io.Copy(target, stream); err != nil {
			abort(target)
			return
		}
		if half, ok := target.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			_ = target.Close()
		}
	})
	if _, err := io.Copy(stream, target); err != nil {
		stream.Reset(wire.CodeTargetReset)
		abort(target)
	} else {
		_ = stream.CloseWrite()
	}
	up.Wait()
}

func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// SetLive says which gateways the control plane tells devices about; at first
// all of them.
func (s *Service) SetLive(gateways ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.Clone(gateways)
}

// list is called with mu held.
func (s *Service) list() []map[string]string {
	list := []map[string]string{}
	for _, i := range s.live {
		list = append(list, map[string]string{
			"id": fmt.Sprintf("gateway-%d", i), "region": "local", "url": s.Gateway(i),
		})
	}
	return list
}

// Gateway returns the URL of a gateway.
func (s *Service) Gateway(n int) string {
	host := s.host
	if s.opts.Apart {
		host = fmt.Sprintf("gateway%d.%s", n, s.host)
	}
	return fmt.Sprintf("wss://%s/tunnel/%d", host, n)
}

// SetFronts sets how many further URLs gateways name from now on.
func (s *Service) SetFronts(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fronts = n
}

// Front returns a further URL of a gateway; the first has number 0.
func (s *Service) Front(gateway, number int) string {
	return fmt.Sprintf("wss://front%d.%s/tunnel/%d", number, s.host, gateway)
}
