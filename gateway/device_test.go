package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// device is a device's side of the handshake, which a test may bend.
type device struct {
	key    ed25519.PrivateKey
	hidden knock.Key // what it knocks with
	id     uuid.UUID
	token  string
	bend   func(*wire.Hello) // before it is signed
	signer ed25519.PrivateKey
	behind []byte // frames sent with HELLO

	leaves  bool     // it knows what a gateway says that goes away
	lasting bool     // it wants sessions that can be resumed
	padded  bool     // it knows padding
	hears   *hearing // it wants to be told what changes; nil: it does not
}

// hearing is what a device is told while its session lives.
type hearing struct {
	auths   chan wire.Auth
	limits  chan wire.SessionTerms
	notices chan wire.Notice
}

// hearing returns the device that wants to be told, with room for more than a test needs.
func (d device) hearing() device {
	d.hears = &hearing{make(chan wire.Auth, 100), make(chan wire.SessionTerms, 100), make(chan wire.Notice, 100)}
	return d
}

func (h *hearing) terms() *mux.Terms {
	if h == nil {
		return nil
	}
	return &mux.Terms{
		OnAuth: func(a wire.Auth) { h.auths <- a }, OnLimits: func(l wire.SessionTerms) { h.limits <- l },
		OnNotice: func(n wire.Notice) { h.notices <- n },
	}
}

// capabilities are those that the device knows: as a rule, its sessions end with their
// carrier.
func (d device) capabilities() wire.Capabilities {
	known := wire.Capabilities(0).With(wire.ChannelBinding)
	if d.lasting {
		known = known.With(wire.Resume)
	}
	if d.padded {
		known = known.With(wire.Padding)
	}
	if d.leaves {
		known = known.With(wire.Drain)
	}
	if d.hears != nil {
		known = known.With(wire.Terms)
	}
	return known
}

// knock opens a carrier and introduces the device. It returns the gateway's
// answer to HELLO.
func (d device) knock(t *testing.T, gatewayURL string, trust *tls.Config) (*carrier.Conn, wire.Frame) {
	t.Helper()
	conn, challenge := d.open(t, gatewayURL, trust)
	return conn, d.introduce(t, conn, challenge, gatewayURL)
}

// open opens a carrier and returns the gateway's CHALLENGE.
func (d device) open(t *testing.T, gatewayURL string, trust *tls.Config) (*carrier.Conn, wire.Challenge) {
	t.Helper()
	u, err := url.Parse(gatewayURL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := carrier.Dial(t.Context(), gatewayURL, carrier.DialOptions{
		TLS: trust, Cookie: knock.DefaultCookie + "=" + knock.Mint(d.hidden, u.Host, time.Now()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	message, err := conn.ReadMessage(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame, _, err := wire.ConsumeFrame(message)
	if err != nil || frame.Type != wire.TypeChallenge {
		t.Fatalf("the first frame is %v, %v", frame.Type, err)
	}
	challenge, err := wire.ParseChallenge(frame.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return conn, challenge
}

// introduce sends HELLO and returns the answer.
func (d device) introduce(t *testing.T, conn *carrier.Conn, challenge wire.Challenge, gatewayURL string) wire.Frame {
	t.Helper()
	u, err := url.Parse(gatewayURL)
	if err != nil {
		t.Fatal(err)
	}
	binding, err := conn.ExportKeyingMaterial()
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{
		Capabilities: challenge.Capabilities & d.capabilities(), DeviceID: d.id, Agent: "test/1", AccessToken: d.token,
		Time: time.Now(), DeviceKey: [32]byte(publicOf(d.key)),
	}
	_, _ = rand.Read(hello.ClientNonce[:])
	if d.bend != nil {
		d.bend(&hello)
	}
	signer := d.key
	if d.signer != nil {
		signer = d.signer
	}
	hello.Signature = [64]byte(ed25519.Sign(signer, hello.SigningInput(challenge.Nonce, u.Host, binding)))
	if err := conn.WriteMessage(append(wire.AppendHello(nil, hello), d.behind...)); err != nil {
		t.Fatal(err)
	}
	message, err := conn.ReadMessage(nil)
	if err != nil {
		t.Fatalf("the answer to HELLO: %v", err)
	}
	answer, _, err := wire.ConsumeFrame(message)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// tunnel is a device's session.
type tunnel struct {
	*mux.Session
	ready wire.Ready
	ended chan error       // what Run returned
	said  chan wire.GoAway // what the gateway said, the first ones
	conn  *carrier.Conn
}

// connect opens a session, which must succeed.
func (d device) connect(t *testing.T, gatewayURL string, trust *tls.Config) *tunnel {
	t.Helper()
	conn, answer := d.knock(t, gatewayURL, trust)
	if answer.Type != wire.TypeReady {
		reject, err := wire.ParseReject(answer.Payload)
		t.Fatalf("the gateway answers %v: %+v, %v", answer.Type, reject, err)
	}
	ready, err := wire.ParseReady(answer.Payload)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Time{})
	tun := &tunnel{ready: ready, ended: make(chan error, 1), said: make(chan wire.GoAway, 2), conn: conn}
	var padding *wire.PaddingPolicy
	if ready.Capabilities.Has(wire.Padding) {
		padding = &ready.PaddingPolicy
	}
	tun.Session = mux.New(conn, mux.Config{
		Padding: padding,
		Role:    mux.Client, Limits: ready.Limits, Resume: mux.Resume{Within: ready.ResumeWindow}, Terms: d.hears.terms(),
		Drain: mux.Drain{Agreed: ready.Capabilities.Has(wire.Drain), OnGoAway: func(g wire.GoAway) {
			select {
			case tun.said <- g:
			default:
			}
		}},
	})
	var running sync.WaitGroup
	running.Go(func() { tun.ended <- tun.Run(t.Context()) })
	t.Cleanup(func() {
		tun.Close(wire.CodeNoError, "")
		running.Wait()
	})
	return tun
}

// wantReject knocks and wants this refusal and nothing behind it.
func (d device) wantReject(t *testing.T, gatewayURL string, trust *tls.Config, want wire.Code) wire.Reject {
	t.Helper()
	conn, answer := d.knock(t, gatewayURL, trust)
	if answer.Type != wire.TypeReject {
		t.Fatalf("the gateway answers %v, want REJECT(%v)", answer.Type, want)
	}
	reject, err := wire.ParseReject(answer.Payload)
	if err != nil || reject.Code != want {
		t.Errorf("REJECT(%v), %v, want %v", reject.Code, err, want)
	}
	if message, err := conn.ReadMessage(nil); err == nil {
		t.Errorf("%x behind REJECT", message)
	}
	return reject
}

// origin is a TCP server on loopback that sends back what it reads, after it
// has read the end of it.
type origin struct {
	net.Listener
	addr    wire.Addr
	serving sync.WaitGroup
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	o := &origin{Listener: l, addr: wire.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: uint16(port)}}
	o.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			o.serving.Go(func() {
				defer conn.Close()
				text, err := io.ReadAll(conn)
				if err == nil {
					_, _ = conn.Write(text)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		o.serving.Wait()
	})
	return o
}

// canary is a listener that must not be reached.
func canary(t *testing.T) (addr wire.Addr, untouched func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	return wire.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: uint16(port)}, func() {
		t.Helper()
		own, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		first, err := l.Accept() // in the order in which they came
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if first.RemoteAddr().String() != own.LocalAddr().String() {
			t.Error("something was opened upstream")
		}
	}
}

// exchange sends text through the tunnel to an origin and returns what comes
// back.
func exchange(t *testing.T, tun *tunnel, to wire.Addr, text string) (string, error) {
	t.Helper()
	st, err := tun.Open(t.Context(), to)
	if err != nil {
		return "", err
	}
	defer st.Close()
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = io.Copy(st, strings.NewReader(text))
		_ = st.CloseWrite()
	})
	defer sending.Wait()
	got, err := io.ReadAll(st)
	return string(got), err
}
