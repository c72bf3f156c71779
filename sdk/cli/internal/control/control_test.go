package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheOwnersCommandsReachTheOneThatIsConnected(t *testing.T) {
	homes := map[string]string{"a short path": t.TempDir()}
	if runtime.GOOS == "linux" {
		homes["a path too long for a socket"] = filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	}
	for name, dir := range homes {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var got map[string]int
			if err := Status(t.Context(), dir, &got); !errors.Is(err, ErrNobody) {
				t.Errorf("before: %v", err)
			}
			for range 2 { // what a crash leaves behind is in nobody's way
				ln, err := Listen(dir)
				if err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(filepath.Join(dir, "control.sock"))
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("the socket: %v, %v", info.Mode(), err)
				}
				_ = ln.(*listener).Listener.Close()
			}
			if err := Status(t.Context(), dir, &got); !errors.Is(err, ErrNobody) {
				t.Errorf("after a crash: %v", err)
			}
			ln, err := Listen(dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var serving, echo sync.WaitGroup
			serving.Go(func() {
				_ = Serve(ctx, ln, func() any { return map[string]int{"streams": 3} }, func(_ context.Context, _, address string) (net.Conn, error) {
					if address != "echo.test:7" {
						return nil, io.ErrUnexpectedEOF
					}
					ours, theirs := net.Pipe()
					echo.Go(func() { _, _ = io.Copy(theirs, theirs); _ = theirs.Close() })
					return ours, nil
				})
			})
			if err := Status(t.Context(), dir, &got); err != nil || got["streams"] != 3 {
				t.Errorf("Status: %v, %v", got, err)
			}
			conn, err := DialThrough(t.Context(), dir, "echo.test:7")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, "hello")
			buf := make([]byte, 5)
			if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
				t.Errorf("%q, %v", buf, err)
			}
			_ = conn.Close()
			if _, err := DialThrough(t.Context(), dir, "other.test:7"); err == nil || errors.Is(err, ErrNobody) {
				t.Errorf("a target that cannot be had: %v", err)
			}
			cancel()
			serving.Wait()
			echo.Wait()
			entries, _ := os.ReadDir(dir)
			if len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}
