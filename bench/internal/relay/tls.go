package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"
)

// ServerConfig returns the TLS settings of the gateway's end. There are no
// session tickets, as each stream pays its handshake in full.
func ServerConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{cert},
		MinVersion:                  tls.VersionTLS13,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// ClientConfig returns the TLS settings of the device's end, which verifies the
// server as any client would.
func ClientConfig(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{
		RootCAs:                     roots,
		ServerName:                  host,
		MinVersion:                  tls.VersionTLS13,
		DynamicRecordSizingDisabled: true,
	}
}

// BareTLS measures TLS alone, in bytes per second: one connection over loopback,
// both ends in this process, buffer bytes at once, for d. What a relay of two
// processes reaches beside that says whether the relay is slow.
func BareTLS(ctx context.Context, server, client *tls.Config, buffer int, d time.Duration) (speed float64, err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	sending, failed := sync.WaitGroup{}, make(chan error, 1)
	defer sending.Wait()
	far := make(chan net.Conn, 1)
	sending.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			failed <- err
			close(far)
			return
		}
		far <- conn
		out, pattern := tls.Server(conn, server), make([]byte, buffer)
		for err == nil {
			_, err = out.Write(pattern)
		}
		failed <- err // the reader hangs up, in the end
	})
	defer func() { // unblocks the sender
		_ = ln.Close()
		if conn, ok := <-far; ok {
			_ = conn.Close()
		}
	}()
	dialer := tls.Dialer{Config: client}
	in, err := dialer.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return 0, err
	}
	defer in.Close()
	_ = in.SetDeadline(time.Now().Add(2*d + 10*time.Second))

	buf := make([]byte, buffer)
	var total int64
	warm := time.Now().Add(d / 4)
	start := warm
	for now := time.Now(); now.Before(warm.Add(d)) || total == 0; now = time.Now() {
		n, err := in.Read(buf)
		if err != nil {
			return 0, errors.Join(err, <-failed)
		}
		if now.After(warm) {
			total += int64(n)
		} else {
			start = now
		}
	}
	return float64(total) / time.Since(start).Seconds(), nil
}
