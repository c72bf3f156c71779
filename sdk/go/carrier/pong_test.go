package carrier

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// A peer that pings and does not read must not stop the reader.
func TestReadingGoesOnWhilePongsWait(t *testing.T) {
	srv := httptest.NewTLSServer(nil) // for its certificate
	cert, roots := srv.TLS.Certificates[0], x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	srv.Close()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // a write waits until it is read
		server := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
		peer := tls.Client(far, &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := server.Handshake(); err != nil {
				t.Errorf("server: %v", err)
			}
		})
		if err := peer.Handshake(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()

		conn := newConn(server, bufio.NewReaderSize(server, readBuffer), false)
		wg.Go(func() {
			for range 3 {
				ping := ws.MaskFrameInPlace(ws.NewPingFrame([]byte("are you there")))
				if err := ws.WriteFrame(peer, ping); err != nil {
					t.Errorf("ping: %v", err)
				}
			}
			if err := ws.WriteFrame(peer, ws.MaskFrameInPlace(ws.NewBinaryFrame([]byte("message")))); err != nil {
				t.Errorf("message: %v", err)
			}
		})
		begin := time.Now()
		got, err := conn.ReadMessage(nil)
		if err != nil || string(got) != "message" || !time.Now().Equal(begin) {
			t.Errorf("read %q, %v, after %v", got, err, time.Since(begin))
		}
		wg.Wait()
		_ = far.Close()
		_ = conn.Close()
	})
}
