// Package control is the socket in a device's home by which its owner's other
// commands reach the one that is connected: it tells how that is doing, and opens
// connections through its tunnel.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/httpproxy"
)

// name is that of the socket.
const name = "control.sock"

const (
	// maxPath is how long a path to a socket may be on every system.
	maxPath = 100

	// askTimeout bounds a question, maxAnswer its answer.
	askTimeout = 5 * time.Second
	maxAnswer  = 1 << 20
)

// ErrNobody says that no command is connected with a home.
var ErrNobody = errors.New("no httvps connect is running with this home")

// Listen opens the socket, for the owner of the home only. Whoever calls it holds the
// home, so that a socket that is there was left behind.
func Listen(dir string) (net.Listener, error) {
	// It is made where nobody else can go, and moved when only its owner can open it.
	private, err := os.MkdirTemp(dir, ".socket-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }()
	path, done, err := short(private)
	if err != nil {
		return nil, err
	}
	defer done()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it is elsewhere then
	made, at := filepath.Join(private, name), filepath.Join(dir, name)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, at)
	}
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return &listener{ln, at}, nil
}

// listener removes its socket when it is closed.
type listener struct {
	net.Listener
	path string
}

func (l *listener) Close() error {
	_ = os.Remove(l.path)
	return l.Listener.Close()
}

// short is a path to the socket in dir that is not too long for the system.
func short(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path of the home is too long for a socket, by %d bytes", len(path)-maxPath)
	}
	open, err := os.Open(dir) //nolint:gosec // the user's own directory
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", open.Fd(), name), func() { _ = open.Close() }, nil
}

// Dial is that of the tunnel.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Serve answers at ln until ctx ends: with what status returns, and with connections
// through the tunnel.
func Serve(ctx context.Context, ln net.Listener, status func() any, dial Dial) error {
	server := &httpproxy.Server{Dial: dial, Local: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})}
	return server.Serve(ctx, ln)
}

// connect opens a connection to the socket in dir.
func connect(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := short(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil && ctx.Err() == nil && !errors.Is(err, os.ErrPermission) {
		return nil, ErrNobody
	}
	return conn, err
}

// Status asks the command that is connected how it is doing. The error is ErrNobody
// when there is none.
func Status(ctx context.Context, dir string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := connect(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "GET /status HTTP/1.1\r\nHost: httvps\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), nil)
	if err != nil {
		return fmt.Errorf("ask httvps connect: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask httvps connect: it answers %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// DialThrough opens a connection through the tunnel of the command that is
// connected. The error is ErrNobody when there is none.
func DialThrough(ctx context.Context, dir, address string) (net.Conn, error) {
	conn, err := connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	r := bufio.NewReader(conn)
	resp, err := func() (*http.Response, error) {
		if _, err := io.WriteString(conn, "CONNECT "+address+" HTTP/1.1\r\nHost: httvps\r\n\r\n"); err != nil {
			return nil, err
		}
		return http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	}()
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		_ = conn.Close()
		return nil, fmt.Errorf("open %s: %s", address, text)
	}
	return &through{conn, r}, nil
}

// through is a connection of which some may have been read already.
type through struct {
	net.Conn
	r *bufio.Reader
}

func (t *through) Read(p []byte) (int, error) { return t.r.Read(p) }
