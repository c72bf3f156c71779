package shadowsocks_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

const password = "correct horse battery staple"

// patience bounds what a test waits for.
const patience = time.Minute

func newKey(tb testing.TB, cipher string, prefix string) *shadowsocks.Key {
	tb.Helper()
	k, err := shadowsocks.NewKey(cipher, password, []byte(prefix))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// dial connects to a target through a server.
func dial(t *testing.T, k *shadowsocks.Key, server netip.AddrPort, target wire.Addr) *shadowsocks.Conn {
	t.Helper()
	tcp, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := k.Client(tcp, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// noise is the same bytes for the same seed.
func noise(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func sumOf(r io.Reader, size int64) (sum [32]byte, n int64) {
	h := sha256.New()
	n, _ = io.CopyN(h, r, size)
	return [32]byte(h.Sum(nil)), n
}

// bulk is how much goes each way: as much as shows what small pieces do not.
func bulk() int64 {
	if os.Getenv("HTTVPS_SOAK") == "1" {
		return 1 << 30
	}
	return 64 << 20
}

// TestEveryByteGoesBothWaysThroughLibev: the target sends its noise and takes the
// other's at the same time.
func TestEveryByteGoesBothWaysThroughLibev(t *testing.T) {
	size := bulk()
	for _, cipher := range shadowsocks.Ciphers() {
		t.Run(cipher, func(t *testing.T) {
			server := sstest.StartLibev(t, cipher, password)
			up := make(chan [32]byte, 1)
			target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
				var sending sync.WaitGroup
				sending.Go(func() { _, _ = io.CopyN(struct{ io.Writer }{conn}, noise(1), size) })
				sum, _ := sumOf(conn, size)
				up <- sum
				sending.Wait()
			})
			conn := dial(t, newKey(t, cipher, ""), server.Addr, target)
			_ = conn.SetDeadline(time.Now().Add(30 * patience))
			var sending sync.WaitGroup
			sending.Go(func() {
				if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, io.LimitReader(noise(2), size), make([]byte, 65_504)); err != nil {
					t.Error(err)
				}
			})
			defer sending.Wait()
			down, n := sumOf(struct{ io.Reader }{conn}, size)
			if want, _ := sumOf(noise(1), size); n != size || down != want {
				t.Errorf("down: %d bytes, %x, want %x", n, down, want)
			}
			if want, _ := sumOf(noise(2), size); <-up != want {
				t.Error("up: other bytes")
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // io.EOF itself
				t.Errorf("behind the last byte: %d, %v", n, err)
			}
		})
	}
}

// TestHalfClose: libev drops an answer that comes behind a half-close, so this is
// against a server that was written from the specification.
func TestHalfClose(t *testing.T) {
	for _, cipher := range shadowsocks.Ciphers() {
		t.Run(cipher, func(t *testing.T) {
			server := sstest.StartServer(t, cipher, password, sstest.Options{})
			const size = 1 << 20
			target := sstest.ServeTCP(t, func(conn *net.TCPConn) { // the answer begins when the question has ended
				question, _ := io.ReadAll(conn)
				_, _ = conn.Write(bytes.ToUpper(question))
			})
			conn := dial(t, newKey(t, cipher, ""), server.Addr, target)
			if _, err := io.Copy(struct{ io.Writer }{conn}, strings.NewReader(strings.Repeat("abcdefgh", size/8))); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after CloseWrite: %v", err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != strings.Repeat("ABCDEFGH", size/8) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	t.Run("without a byte", func(t *testing.T) {
		server := sstest.StartServer(t, shadowsocks.DefaultCipher, password, sstest.Options{})
		target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
			question, err := io.ReadAll(conn)
			_, _ = conn.Write(append(question, "nothing came"...))
			if err != nil {
				t.Error(err)
			}
		})
		conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), server.Addr, target)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "nothing came" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("by the target", func(t *testing.T) {
		server := sstest.StartServer(t, shadowsocks.DefaultCipher, password, sstest.Options{})
		heard := make(chan string, 1)
		target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
			_, _ = conn.Write([]byte("that is all"))
			_ = conn.CloseWrite()
			rest, _ := io.ReadAll(conn)
			heard <- string(rest)
		})
		conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), server.Addr, target)
		if got, err := io.ReadAll(conn); err != nil || string(got) != "that is all" {
			t.Fatalf("%q, %v", got, err)
		}
		_, _ = conn.Write([]byte("I have more"))
		_ = conn.CloseWrite()
		if got := <-heard; got != "I have more" {
			t.Errorf("the target heard %q", got)
		}
	})
}

// The address leaves without a word of the device, so that a target that speaks
// first is heard.
func TestATargetMaySpeakFirst(t *testing.T) {
	server := sstest.StartLibev(t, shadowsocks.DefaultCipher, password)
	target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("220 ready\r\n"))
		sstest.Echo(conn)
	})
	conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), server.Addr, target)
	greeting := make([]byte, 11)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "220 ready\r\n" {
		t.Errorf("%q, %v", greeting, err)
	}
}

func TestNamesAreSentAsTheyAre(t *testing.T) {
	target := sstest.ServeTCP(t, sstest.Echo)
	server := sstest.StartServer(t, "aes-192-gcm", password, sstest.Options{
		Dial: func(string) (net.Conn, error) { return net.Dial("tcp", target.String()) },
	})
	name := strings.Repeat("a.", 120) + "example.com"
	for _, to := range []wire.Addr{{Name: name, Port: 65535}, {IP: netip.MustParseAddr("2001:db8::1"), Port: 80}, {IP: netip.MustParseAddr("192.0.2.1"), Port: 1}} {
		conn := dial(t, newKey(t, "aes-192-gcm", ""), server.Addr, to)
		_, _ = conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if got := server.Targets(); got[len(got)-1] != to.String() {
			t.Errorf("the server was asked for %s, want %s", got[len(got)-1], to)
		}
	}
	if _, err := newKey(t, "aes-192-gcm", "").Client(nil, wire.Addr{Name: "a..b", Port: 1}); err == nil {
		t.Error("a name that is none was sent")
	}
}

// writes is a stream that keeps each write.
type writes struct {
	net.Conn
	list chan []byte
}

func newWrites() writes {
	near, _ := net.Pipe()
	return writes{near, make(chan []byte, 100)}
}

func (w writes) Write(p []byte) (int, error) {
	w.list <- bytes.Clone(p)
	return len(p), nil
}
func (w writes) CloseWrite() error { close(w.list); return nil }

// TestTheFirstBytesLeaveInOneWrite with the salt and the address, so that no
// packet's size tells that they are there.
func TestTheFirstBytesLeaveInOneWrite(t *testing.T) {
	target := wire.Addr{Name: "example.com", Port: 443}
	for name, tc := range map[string]struct {
		do    func(*shadowsocks.Conn)
		want  string // in the first write
		after time.Duration
	}{
		"with bytes":    {func(c *shadowsocks.Conn) { _, _ = c.Write([]byte("hello")) }, "hello", 0},
		"without bytes": {func(*shadowsocks.Conn) {}, "", 10 * time.Millisecond},
		"with an end":   {func(c *shadowsocks.Conn) { _ = c.CloseWrite() }, "", 0},
		"with 64 KiB":   {func(c *shadowsocks.Conn) { _, _ = c.Write(make([]byte, 65_504)) }, string(make([]byte, 65_504)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stream := newWrites()
				conn, err := newKey(t, "aes-256-gcm", "").Client(stream, target)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				tc.do(conn)
				first := <-stream.list
				if took := time.Since(began); took != tc.after {
					t.Errorf("after %v, want %v", took, tc.after)
				}
				in := sstest.NewCrypt("aes-256-gcm", password).NewReader(bytes.NewReader(first))
				if got, err := sstest.Target(in); err != nil || got != target.String() {
					t.Errorf("to %s, %v", got, err)
				}
				got, err := io.ReadAll(in)
				if string(got) != tc.want || err != nil {
					t.Errorf("%d bytes in the first write, %v, want %d", len(got), err, len(tc.want))
				}
				synctest.Wait()
				if len(stream.list) != 0 {
					t.Errorf("%d writes more", len(stream.list))
				}
				_ = conn.Close()
			})
		})
	}
}

func TestNothingIsSentAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := newWrites()
		conn, err := newKey(t, "aes-256-gcm", "").Client(stream, wire.Addr{Name: "example.com", Port: 443})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		<-time.After(time.Second)
		if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) || len(stream.list) != 0 {
			t.Errorf("%d writes, %v", len(stream.list), err)
		}
	})
}

// TestAPrefixBeginsTheSalt of connections, and everything behind it differs.
func TestAPrefixBeginsTheSalt(t *testing.T) {
	const prefix = "POST \x16\x03\x01\x00"
	k := newKey(t, shadowsocks.DefaultCipher, prefix)
	var before []byte
	for range 3 {
		stream := newWrites()
		conn, err := k.Client(stream, wire.Addr{Name: "example.com", Port: 443})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("x"))
		first := <-stream.list
		if !bytes.HasPrefix(first, []byte(prefix)) || bytes.Equal(first[:32], before) {
			t.Errorf("salt % x", first[:32])
		}
		before = first[:32]
		_ = conn.Close()
	}
	server := sstest.StartLibev(t, shadowsocks.DefaultCipher, password)
	conn := dial(t, k, server.Addr, sstest.ServeTCP(t, sstest.Echo))
	_, _ = conn.Write([]byte("hello"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBadServers: what a server does wrong is told, in time, and apart from what a
// target does.
func TestBadServers(t *testing.T) {
	answer := func(s *sstest.Server, conn *net.TCPConn, f func(w *sstest.Writer, salt []byte)) {
		in := s.Crypt.NewReader(conn)
		if _, err := sstest.Target(in); err != nil {
			return
		}
		salt := s.Crypt.Salt()
		f(s.Crypt.NewWriter(conn, salt), salt)
	}
	for name, tc := range map[string]struct {
		serve func(*sstest.Server, *net.TCPConn)
		want  error
		read  string
	}{
		"closes without a byte": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(*sstest.Writer, []byte) {})
		}, shadowsocks.ErrNoAnswer, ""},
		"closes in the salt": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(_ *sstest.Writer, salt []byte) { _, _ = conn.Write(salt[:5]) })
		}, shadowsocks.ErrCut, ""},
		"closes behind the salt": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(_ *sstest.Writer, salt []byte) { _, _ = conn.Write(salt) })
		}, shadowsocks.ErrCut, ""},
		"closes in a chunk": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(w *sstest.Writer, _ []byte) {
				whole := append(w.Chunk([]byte("whole"), 5), w.Chunk([]byte("cut"), 3)...)
				_, _ = conn.Write(whole[:len(whole)-1])
			})
		}, shadowsocks.ErrCut, "whole"},
		"has another password": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(*sstest.Writer, []byte) {
				other := sstest.NewCrypt(shadowsocks.DefaultCipher, "wrong")
				_, _ = other.NewWriter(conn, other.Salt()).Write([]byte("x"))
			})
		}, shadowsocks.ErrTag, ""},
		"is a web server": {func(_ *sstest.Server, conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"+strings.Repeat("x", 100))
			_, _ = io.Copy(io.Discard, conn)
		}, shadowsocks.ErrTag, ""},
		"sends back what it got": {func(_ *sstest.Server, conn *net.TCPConn) { sstest.Echo(conn) }, shadowsocks.ErrReplay, ""},
		"sends an empty chunk": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(w *sstest.Writer, _ []byte) { _, _ = conn.Write(w.Chunk(nil, 0)) })
		}, shadowsocks.ErrFormat, ""},
		"sends a chunk that is too long": {func(s *sstest.Server, conn *net.TCPConn) {
			answer(s, conn, func(w *sstest.Writer, _ []byte) { _, _ = conn.Write(w.Chunk(make([]byte, 0x4000), 0x4000)) })
		}, shadowsocks.ErrFormat, ""},
		"never answers": {func(_ *sstest.Server, conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, os.ErrDeadlineExceeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := sstest.StartServer(t, shadowsocks.DefaultCipher, password, sstest.Options{Serve: tc.serve})
			conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), server.Addr, wire.Addr{Name: "target.example", Port: 80})
			if errors.Is(tc.want, os.ErrDeadlineExceeded) {
				_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			}
			_, _ = conn.Write([]byte("hello"))
			got, err := io.ReadAll(conn)
			if !errors.Is(err, tc.want) || string(got) != tc.read {
				t.Errorf("%q, %v; want %q, %v", got, err, tc.read, tc.want)
			}
			if _, again := conn.Read(make([]byte, 1)); !errors.Is(again, tc.want) {
				t.Errorf("then %v", again)
			}
		})
	}
}

// A salt that a server used before is refused on another connection, too.
func TestAnAnswerIsNotRecorded(t *testing.T) {
	var salt []byte
	server := sstest.StartServer(t, "aes-128-gcm", password, sstest.Options{Serve: func(s *sstest.Server, conn *net.TCPConn) {
		in := s.Crypt.NewReader(conn)
		_, _ = sstest.Target(in)
		if salt == nil {
			salt = s.Crypt.Salt()
		}
		_, _ = s.Crypt.NewWriter(conn, salt).Write([]byte("x"))
	}})
	k := newKey(t, "aes-128-gcm", "")
	for i, want := range []error{nil, shadowsocks.ErrReplay} {
		conn := dial(t, k, server.Addr, wire.Addr{Name: "target.example", Port: 80})
		_, _ = conn.Write([]byte("hello"))
		if _, err := io.ReadAll(conn); !errors.Is(err, want) {
			t.Errorf("answer %d: %v, want %v", i+1, err, want)
		}
	}
}

// TestLibevDoesNotAnswerAStranger: another password and another cipher are a server
// that keeps silent or closes, in no case one that answers.
func TestLibevDoesNotAnswerAStranger(t *testing.T) {
	target := sstest.ServeTCP(t, func(*net.TCPConn) { t.Error("the target was reached") })
	server := sstest.StartLibev(t, shadowsocks.DefaultCipher, "another password")
	other := sstest.StartLibev(t, "aes-256-gcm", password)
	for name, addr := range map[string]netip.AddrPort{"password": server.Addr, "cipher": other.Addr} {
		conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), addr, target)
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _ = conn.Write([]byte("hello"))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF { //nolint:errorlint // io.EOF itself
			t.Errorf("another %s: %d bytes, %v", name, n, err)
		}
	}
}

// TestAServerThatIsKilled in the middle of a download ends it with an error, except
// where it was killed between two chunks, which nobody can see.
func TestAServerThatIsKilled(t *testing.T) {
	server := sstest.StartLibev(t, shadowsocks.DefaultCipher, password)
	target := sstest.ServeTCP(t, func(conn *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{conn}, noise(1)) })
	conn := dial(t, newKey(t, shadowsocks.DefaultCipher, ""), server.Addr, target)
	_, _ = conn.Write([]byte("go"))
	if _, err := io.CopyN(io.Discard, conn, 8<<20); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	_, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection goes on")
	}
	t.Logf("Read ends with %v", err)
	if _, err := io.CopyN(struct{ io.Writer }{conn}, noise(2), 8<<20); err == nil {
		t.Error("Write goes on")
	}
}

// TestAWriteThatWaitsHoldsNoBuffer: many writes wait for servers that read nothing; then
// these read, byte for byte what was written.
func TestAWriteThatWaitsHoldsNoBuffer(t *testing.T) {
	const conns, size = 64, 1 << 20
	for _, cipher := range []string{shadowsocks.DefaultCipher, "aes-128-gcm"} {
		t.Run(cipher, func(t *testing.T) {
			read := make(chan struct{})
			sums := make(chan [32]byte, conns)
			server := sstest.StartServer(t, cipher, password, sstest.Options{Serve: func(s *sstest.Server, conn *net.TCPConn) {
				<-read
				in := s.Crypt.NewReader(conn)
				if _, err := sstest.Target(in); err != nil {
					t.Error(err)
				}
				sum, _ := sumOf(in, size)
				sums <- sum
			}})
			k := newKey(t, cipher, "")
			text, err := io.ReadAll(io.LimitReader(noise(1), size))
			if err != nil {
				t.Fatal(err)
			}
			before := heap()
			var moved atomic.Int64
			var writing sync.WaitGroup
			open := make([]*shadowsocks.Conn, conns)
			for i := range open {
				tcp, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(server.Addr))
				if err != nil {
					t.Fatal(err)
				}
				_ = tcp.SetWriteBuffer(64 << 10) // less than what is written
				if open[i], err = k.Client(tcp, wire.Addr{Name: "target.example", Port: 80}); err != nil {
					t.Fatal(err)
				}
				defer open[i].Close()
				writing.Go(func() {
					for rest := text; len(rest) > 0; {
						n, err := open[i].Write(rest[:min(len(rest), 65_504)])
						moved.Add(int64(n))
						if err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
					}
				})
			}
			for last, quiet := int64(-1), 0; quiet < 5; <-time.After(50 * time.Millisecond) { // until all wait
				if now := moved.Load(); now == last {
					quiet++
				} else {
					last, quiet = now, 0
				}
			}
			each := (heap() - before) / conns
			t.Logf("%d bytes moved; each connection that waits holds %d bytes", moved.Load(), each)
			if each > 40<<10 { // what connections and goroutines are, at both ends
				t.Errorf("each holds %d bytes", each)
			}
			close(read)
			want := sha256.Sum256(text)
			for range conns {
				if sum := <-sums; sum != want {
					t.Error("other bytes arrived")
				}
			}
			writing.Wait()
		})
	}
}

// heap is the memory of live objects and of stacks.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools keep for a while
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// What a Write could not send is not counted, and nothing is sent behind a hole.
func TestAFailedWriteIsTheLast(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	conn, err := newKey(t, "aes-128-gcm", "").Client(half{near}, wire.Addr{Name: "a", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(-time.Second))
	for range 2 {
		if n, err := conn.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %d, %v", n, err)
		}
		_ = conn.SetWriteDeadline(time.Time{})
	}
}

type half struct{ net.Conn }

func (h half) CloseWrite() error { return nil }

// space counts what is out.
type space struct {
	p   []byte
	out int
}

func (s *space) Take() []byte { s.out++; return s.p }
func (s *space) Return(bool)  { s.out-- }

// The space of a read is kept when there is something to put there; before it is only
// looked at, for its size.
func TestAConnectionThatWaitsHoldsNoSpace(t *testing.T) {
	server := sstest.StartServer(t, "aes-128-gcm", password, sstest.Options{})
	conn := dial(t, newKey(t, "aes-128-gcm", ""), server.Addr, sstest.ServeTCP(t, sstest.Echo))
	s := &space{p: make([]byte, 10)}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conn.ReadLazy(s); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || s.out != 0 {
		t.Errorf("%d, %v, %d taken", n, err, s.out)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = conn.Write([]byte("0123456789abcdef"))
	for _, want := range []string{"0123456789", "abcdef"} {
		n, err := conn.ReadLazy(s)
		if err != nil || string(s.p[:n]) != want || s.out != 1 {
			t.Errorf("%q, %v, %d taken", s.p[:n], err, s.out)
		}
		s.out = 0
	}
}

// TestDatagramsGoThroughLibev with all ciphers, of all sizes.
func TestDatagramsGoThroughLibev(t *testing.T) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(bytes.ToUpper(buf[:n]), from)
		}
	})
	t.Cleanup(func() { _ = u.Close(); wg.Wait() })
	target := u.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, cipher := range shadowsocks.Ciphers() {
		server := sstest.StartLibev(t, cipher, password)
		k := newKey(t, cipher, "prefixes are not for datagrams"[:8])
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server.Addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, size := range []int{1, 500, 1200, 1400} { // libev drops what is longer than its idea of a packet
			payload := bytes.Repeat([]byte("x"), size)
			packet, err := k.SealPacket(nil, target, payload)
			if err != nil || bytes.HasPrefix(packet, []byte("prefixes")) {
				t.Fatalf("%s: % x, %v", cipher, packet[:8], err)
			}
			buf := make([]byte, 1<<16)
			n := 0
			for range 5 { // datagrams may be lost
				_, _ = conn.Write(packet)
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				if n, err = conn.Read(buf); err == nil {
					break
				}
				packet, _ = k.SealPacket(nil, target, payload) // the server takes a salt once
			}
			if err != nil {
				t.Fatalf("%s, %d bytes: no answer: %v", cipher, size, err)
			}
			from, got, err := k.OpenPacket(buf[:n])
			if err != nil || from != target || !bytes.Equal(got, bytes.ToUpper(payload)) {
				t.Errorf("%s, %d bytes: %d from %s, %v", cipher, size, len(got), from, err)
			}
		}
		packet, _ := k.SealPacket(nil, target, []byte("mine"))
		if _, _, err := k.OpenPacket(packet); !errors.Is(err, shadowsocks.ErrReplay) {
			t.Errorf("%s: what was sent came back: %v", cipher, err)
		}
	}
}
