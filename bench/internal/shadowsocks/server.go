// Package shadowsocks runs Debian's shadowsocks-libev for measurements.
package shadowsocks

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// ChaCha20 is the cipher of Outline servers.
const ChaCha20 = "chacha20-ietf-poly1305"

// ErrMissing says that there is no ss-server here.
var ErrMissing = errors.New("ss-server is not installed (Debian: shadowsocks-libev)")

const (
	startTimeout = 20 * time.Second
	look         = 10 * time.Millisecond
)

// Server is a running ss-server on loopback, for TCP and UDP.
type Server struct {
	Key string // its access key, an ss:// link

	cmd  *exec.Cmd
	once sync.Once
	err  error
}

// Start starts a server, whose files are in dir, and waits until it listens. It must be
// ended with Stop.
func Start(ctx context.Context, dir, cipher string) (*Server, error) {
	program, err := exec.LookPath("ss-server")
	if err != nil {
		return nil, ErrMissing
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	config, err := json.Marshal(map[string]any{
		"server": "127.0.0.1", "server_port": port, "password": password, "method": cipher, "mode": "tcp_and_udp", "timeout": 300,
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, fmt.Sprintf("ss-server-%d.json", port))
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	s := &Server{
		Key: fmt.Sprintf("ss://%s@127.0.0.1:%d/#server-%d", base64.RawURLEncoding.EncodeToString([]byte(cipher+":"+password)), port, port),
		cmd: exec.Command(program, "-c", file, "-n", "65536"), //nolint:gosec,noctx // ended by Stop
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := listens(ctx, port); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil //nolint:errcheck // what was asked for
}

// listens waits until somebody listens on the port.
func listens(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return fmt.Errorf("ss-server does not listen: %w", err)
		}
	}
}

// Kill ends the server at once (SIGKILL) and waits for that.
func (s *Server) Kill() error {
	s.once.Do(func() {
		s.err = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // it was killed, which is its error
	})
	return s.err
}

// Stop ends the server, if it has not been killed.
func (s *Server) Stop() error { return s.Kill() }
