package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends returns the TLS settings of both ends.
func ends(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	authority, err := devca.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(authority.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return ServerConfig(cert), ClientConfig(roots, "127.0.0.1")
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// newRelay starts both ends and returns the address of the SOCKS5 proxy.
func newRelay(t *testing.T) string {
	t.Helper()
	server, client := ends(t)
	near, far := listener(t), listener(t)
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := New(DefaultBuffer).ServeServer(ctx, far, server); err != nil {
			t.Errorf("ServeServer = %v", err)
		}
	})
	serving.Go(func() {
		if err := New(DefaultBuffer).ServeClient(ctx, near, far.Addr().String(), client); err != nil {
			t.Errorf("ServeClient = %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	return near.Addr().String()
}

// connect asks the proxy for target and returns the connection and the reply.
func connect(t *testing.T, proxy, target string) (*net.TCPConn, byte) {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	address, err := net.ResolveTCPAddr("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	request := append([]byte{5, 1, 0, 5, 1, 0, 1}, address.IP.To4()...)
	if _, err := conn.Write(append(request, byte(address.Port>>8), byte(address.Port))); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), answer[3]
}

func TestBytesArriveAndEachDirectionEndsByItself(t *testing.T) {
	target := listener(t)
	defer target.Close()
	var serving sync.WaitGroup
	serving.Go(func() { // answers after it has read the end
		conn, err := target.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text, _ := io.ReadAll(conn)
		_, _ = conn.Write(text)
	})
	defer serving.Wait()
	conn, reply := connect(t, newRelay(t), target.Addr().String())
	if reply != 0 {
		t.Fatalf("reply %d", reply)
	}
	want := bytes.Repeat([]byte("four score and seven "), 50_000)
	serving.Go(func() {
		_, _ = conn.Write(want)
		_ = conn.CloseWrite()
	})
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(want))
	}
}

func TestATargetThatRefusesIsARefusal(t *testing.T) {
	gone := listener(t)
	gone.Close()
	if _, reply := connect(t, newRelay(t), gone.Addr().String()); reply == 0 {
		t.Error("the proxy says that it is connected")
	}
}

func TestBareTLSMovesBytes(t *testing.T) {
	server, client := ends(t)
	speed, err := BareTLS(t.Context(), server, client, DefaultBuffer, 50*time.Millisecond)
	if err != nil || speed <= 0 {
		t.Errorf("BareTLS = %v, %v", speed, err)
	}
}
