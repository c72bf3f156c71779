package upstream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

func dialFake(t *testing.T, d Dialer) Conn {
	t.Helper()
	conn, err := d.Dial(t.Context(), wire.Addr{Name: "anything.example", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestEchoSendsBackEverythingAndTheEnd(t *testing.T) {
	conn := dialFake(t, Echo{})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	var writing sync.WaitGroup
	writing.Go(func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	})
	got, err := io.ReadAll(conn)
	writing.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v; want the %d that were sent", len(got), err, len(sent))
	}
}

func TestDevnullSwallowsAndAnswersTheEndWithTheEnd(t *testing.T) {
	conn := dialFake(t, Devnull{})
	if n, err := conn.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read before the end = %v, want nothing to read", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read after the end = %d, %v, want EOF", n, err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("Write after CloseWrite went through")
	}
}

func TestFakesUnblockWhenClosed(t *testing.T) {
	for name, d := range map[string]Dialer{"echo": Echo{}, "devnull": Devnull{}} {
		t.Run(name, func(t *testing.T) {
			conn := dialFake(t, d)
			var reading sync.WaitGroup
			reading.Go(func() {
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("Read of a closed connection gave a byte")
				}
			})
			conn.Close()
			reading.Wait()
		})
	}
}

func TestEchoHonoursDeadlines(t *testing.T) {
	conn := dialFake(t, Echo{})
	if err := conn.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
}
