//go:build unix

package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
)

const (
	role = "httvps" // the account of the tests on their servers
	// startTimeout and stopTimeout bound a server's start and end.
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// errMissing says that PostgreSQL is not installed here.
var errMissing = errors.New("PostgreSQL is not installed (Debian: postgresql-15; .ci/install-deps installs it as root)")

// shared is the server of all tests of a process, whose databases need not
// survive anything.
var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Main runs a package's tests, ends the server that they shared and fails when
// a goroutine is left. It does not return.
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	if shared.server != nil {
		if err := shared.server.end(syscall.SIGQUIT); err != nil {
			fmt.Fprintln(os.Stderr, "PostgreSQL:", err)
			code = max(code, 1)
		}
		_ = os.RemoveAll(shared.server.dir) // a leftover in the system's temporary directory at worst
	}
	shared.Unlock()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Server is a PostgreSQL server that the tests started, of the version that
// Debian ships where there is a choice. It listens on loopback and asks for a
// password.
type Server struct {
	bin, dir string
	port     int
	password string
	settings []string
	user     *syscall.Credential

	ended chan error // has one value when the process has ended
	pid   int
}

// Database returns the URL of a new, empty database on the server that the tests
// of this process share; the test's end drops it. Tests that need PostgreSQL get
// skipped where there is none, except where it is required.
func Database(tb testing.TB) string {
	tb.Helper()
	return sharedServer(tb).Database(tb)
}

// Template returns what makes databases like the one that prepare fills: faster
// than preparing each.
func Template(prepare func(ctx context.Context, address string) error) func(testing.TB) string {
	var (
		once sync.Once
		name string
		err  error
	)
	return func(tb testing.TB) string {
		tb.Helper()
		server := sharedServer(tb)
		once.Do(func() {
			made := "template_" + suffix()
			if err = server.execute(tb.Context(), "CREATE DATABASE "+made); err == nil {
				err = prepare(tb.Context(), server.URL(made))
			}
			name = made
		})
		if err != nil {
			tb.Fatalf("prepare a template: %v", err)
		}
		return server.database(tb, " TEMPLATE "+name)
	}
}

func sharedServer(tb testing.TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		var server *Server
		if server, shared.err = newServer("fsync=off", "synchronous_commit=off", "full_page_writes=off"); shared.err == nil {
			if shared.err = server.start(tb.Context()); shared.err == nil {
				shared.server = server
			}
		}
	}
	need(tb, shared.err)
	return shared.server
}

// StartServer starts a server for one test, which may stop and kill it. Its data
// is as safe as in earnest. The test's end removes it.
func StartServer(tb testing.TB) *Server {
	tb.Helper()
	server, err := newServer()
	need(tb, err)
	tb.Cleanup(func() {
		if err := errors.Join(server.end(syscall.SIGQUIT), os.RemoveAll(server.dir)); err != nil {
			tb.Errorf("PostgreSQL: %v", err)
		}
	})
	server.Start(tb)
	return server
}

// need skips or fails the test unless err is nil.
func need(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && !required():
		tb.Skip(err)
	default:
		tb.Fatalf("PostgreSQL: %v", err)
	}
}

// required reports whether PostgreSQL must be here: in CI, which may install it,
// and where that was said.
func required() bool { return inCI() || os.Getenv("HTTVPS_TEST_POSTGRES") == "required" }

// inCI reports whether this is CI as root, where everything must run.
func inCI() bool { return os.Getenv("CI") == "true" && os.Geteuid() == 0 }

// newServer makes the files of a server.
func newServer(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	// Not the test's own directory: a socket's path has room for 107 bytes, and
	// the server's account must get there.
	dir, err := os.MkdirTemp("", "httvps-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, password: suffix(), settings: settings}
	if err := s.initialize(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// binaries returns the directory of the server's programs, preferably of
// version 15.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	slices.Sort(found)
	for _, postgres := range append([]string{"/usr/lib/postgresql/15/bin/postgres"}, found...) {
		if _, err := os.Stat(postgres); err == nil {
			return filepath.Dir(postgres), nil
		}
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		if postgres, err = filepath.EvalSymlinks(postgres); err == nil {
			return filepath.Dir(postgres), nil
		}
	}
	return "", errMissing
}

func (s *Server) initialize() error {
	if os.Geteuid() == 0 { // the server refuses to be root
		account, err := user.Lookup("postgres")
		if err != nil {
			account, err = user.Lookup("nobody")
		}
		if err != nil {
			return err
		}
		uid, err1 := strconv.ParseUint(account.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(err1, err2, os.Chown(s.dir, int(uid), int(gid))); err != nil {
			return err
		}
		s.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.password), 0o644); err != nil { //nolint:gosec // the server's account reads it
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", //nolint:gosec // what binaries found
		"--username="+role, "--auth=scram-sha-256", "--pwfile="+password, "--pgdata="+s.data())
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.user}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		s.port = addr.Port
	}
	return l.Close()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Start starts the server, unless it runs, and waits until it answers.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.start(tb.Context()); err != nil {
		tb.Fatalf("PostgreSQL: %v", err)
	}
}

func (s *Server) start(ctx context.Context) error {
	if s.ended != nil {
		return nil
	}
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=32MB", "log_min_messages=fatal",
		"restart_after_crash=off", "autovacuum=off", "jit=off",
	}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has its own
	started := make(chan error)
	s.ended = make(chan error, 1)
	go func() {
		// The signal that ends the server with this process comes when the thread
		// ends that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(filepath.Join(s.bin, "postgres"), args...) //nolint:gosec,noctx // outlives the test that starts it
		cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, log, log, attributes(s.user)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		s.pid = cmd.Process.Pid
		started <- nil
		s.ended <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		s.ended = nil
		return err
	}
	return s.await(ctx, log)
}

// await waits until the server answers.
func (s *Server) await(ctx context.Context, log *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := s.execute(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case ended := <-s.ended:
			s.ended = nil
			said := make([]byte, 4096)
			n, _ := log.ReadAt(said, 0)
			return fmt.Errorf("it ended: %w\n%s", ended, bytes.TrimSpace(said[:n]))
		case <-ticker.C:
		}
	}
}

// Stop ends the server and everyone's connection to it.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	if err := s.end(syscall.SIGINT); err != nil { // its "fast shutdown"
		tb.Fatalf("PostgreSQL: %v", err)
	}
}

// Crash kills the server as a fault or a loss of power would.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	if err := s.end(syscall.SIGQUIT); err != nil { // its "immediate shutdown": nothing is written
		tb.Fatalf("PostgreSQL: %v", err)
	}
}

// Kill kills the server's own process, without any warning to the others, and
// starts it again: it recovers once they have noticed.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.end(syscall.SIGKILL); err != nil {
		tb.Fatalf("PostgreSQL: %v", err)
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var err error
	for range int(startTimeout / (50 * time.Millisecond)) {
		if err = s.start(tb.Context()); err == nil {
			return
		}
		<-ticker.C // its memory is still in use
	}
	tb.Fatalf("PostgreSQL does not start after it was killed: %v", err)
}

// end stops the server, unless it has ended, and waits for that.
func (s *Server) end(signal syscall.Signal) error {
	if s.ended == nil {
		return nil
	}
	if err := syscall.Kill(s.pid, signal); err != nil {
		return err
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.ended: //nolint:errcheck // how it ended was our wish
		s.ended = nil
		return nil
	case <-timer.C:
		return errors.New("it does not stop")
	}
}

// Password returns the account's password: nothing may ever show it.
func (s *Server) Password() string { return s.password }

// URL returns the URL of a database.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database returns the URL of a new, empty database. The test's end drops it.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	return s.database(tb, "")
}

func (s *Server) database(tb testing.TB, options string) string {
	tb.Helper()
	name := "test_" + suffix()
	if err := s.execute(tb.Context(), "CREATE DATABASE "+name+options); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if s.ended == nil {
			return // and all its databases are dropped with it
		}
		if err := s.execute(context.WithoutCancel(tb.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("drop a test's database: %v", err)
		}
	})
	return s.URL(name)
}

// execute runs a statement in the server's own database.
func (s *Server) execute(ctx context.Context, statement string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return conn.Exec(ctx, statement).Close()
}

func suffix() string {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
