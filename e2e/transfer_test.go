package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/e2e/internal/origin"
	"github.com/httvps/httvps/test/sstest"
)

// transferSize is what one transfer moves: 1 GiB in the long run.
func transferSize() int64 {
	if soak {
		return 1 << 30
	}
	return 96 << 20
}

func TestTransfersAreIntactBothWays(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	size := transferSize()
	want := mustSum(t, size)

	t.Run("down", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--fail", "-x", "socks5h://"+d.Socks, fmt.Sprintf("%s/%d", far.URL(), size))
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, stdout)
		if err != nil || n != size || hex.EncodeToString(sum.Sum(nil)) != want {
			t.Errorf("%d of %d bytes came, %v, or were changed", n, size, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("curl: %v", err)
		}
	})
	t.Run("up", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "content")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, origin.Content(size)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := d.curl("-T", file, far.URL()+"/upload")
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("the far end got %s, %v, want %s", got, err, want)
		}
	})
}

func TestParallelDownloadsAllArrive(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	const downloads = 200
	var wg sync.WaitGroup
	for i := range downloads {
		size := rand.Int64N(1 << 20)
		wg.Go(func() {
			conn, err := socksDial(d.Socks, far.Addr())
			if err != nil {
				t.Errorf("download %d: %v", i, err)
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = fmt.Fprintf(conn, "GET /%d HTTP/1.0\r\n\r\n", size)
			answer, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("download %d: %v", i, err)
				return
			}
			_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
			sum := sha256.Sum256([]byte(body))
			if int64(len(body)) != size || hex.EncodeToString(sum[:]) != mustSum(t, size) {
				t.Errorf("download %d: %d of %d bytes came, or were changed", i, len(body), size)
			}
		})
	}
	wg.Wait()
	if far.Requests() != downloads {
		t.Errorf("the far end saw %d requests, want %d", far.Requests(), downloads)
	}
}

// A client that shuts its write side still reads the answer, and a server that
// answers first still reads the rest.
func TestHalfClose(t *testing.T) {
	s := startService(t)
	d := enroll(t, s.Invite)
	d.connect()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // answers with the checksum of everything, once it has everything
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sum := sha256.New()
			_, _ = io.Copy(sum, conn)
			_, _ = fmt.Fprintf(conn, "%x", sum.Sum(nil))
			_ = conn.Close()
		}
	})
	for _, size := range []int64{0, 3 << 20} {
		conn, err := socksDial(d.Socks, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(conn, origin.Content(size)); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != mustSum(t, size) {
			t.Errorf("after half-close behind %d bytes: %q, %v", size, got, err)
		}
		_ = conn.Close()
	}
}

func TestEgressPolicyHolds(t *testing.T) {
	s := startService(t)
	d := enroll(t, s.Invite)
	d.connect()
	api, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	for target, reply := range map[string]byte{
		api.Host:             2, // the control plane in the same process: never a target, though loopback is allowed
		"169.254.169.254:80": 2, "10.0.0.1:80": 2, "192.168.1.1:80": 2, "[fd00::1]:80": 2, "[64:ff9b::a9fe:a9fe]:80": 2, "127.0.0.1:25": 2,
	} {
		_, err := socksDial(d.Socks, target)
		var refused socksError
		if err == nil || !asReply(err, &refused) || byte(refused) != reply {
			t.Errorf("%s: %v, want SOCKS reply %d", target, err, reply)
		}
	}
	_, err = socksDial(d.Socks, freePort(t))
	var refused socksError
	if !asReply(err, &refused) || refused != 5 {
		t.Errorf("a port that nobody listens on: %v, want SOCKS reply 5", err)
	}
}

// TestAPlanDeniesBesidesItsGateway: a change of the plan holds for a session that lives;
// what is open stays.
func TestAPlanDeniesBesidesItsGateway(t *testing.T) {
	s := startService(t)
	d := enroll(t, s.Invite)
	d.connect()
	target := sstest.ServeTCP(t, sstest.Echo)
	other := sstest.ServeTCP(t, sstest.Echo)
	open, err := socksDial(d.Socks, target.String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	until := func(what string, want byte) { // 0: it opens
		t.Helper()
		for began := time.Now(); ; <-time.After(50 * time.Millisecond) {
			conn, err := socksDial(d.Socks, target.String())
			var refused socksError
			switch {
			case err == nil && want == 0:
				_ = conn.Close()
				return
			case err == nil:
				_ = conn.Close()
			case asReply(err, &refused) && byte(refused) == want:
				return
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%s: %v, want SOCKS reply %d", what, err, want)
			}
		}
	}
	s.ctl(nil, "plan", "update", "dev", "--denied-ports", strconv.Itoa(int(target.Port)))
	until("a port that the plan denies", 2)
	conn, err := socksDial(d.Socks, other.String())
	if err != nil {
		t.Errorf("another port: %v", err)
	} else {
		_ = conn.Close()
	}
	if err := echo(open); err != nil {
		t.Errorf("what was open before: %v", err)
	}
	s.ctl(nil, "plan", "update", "dev", "--denied-ports", "")
	until("a port that it denies no more", 0)
	s.ctl(nil, "plan", "update", "dev", "--denied-prefixes", "127.0.0.0/8")
	until("a prefix that the plan denies", 2)
}

// socksError is a SOCKS5 server's refusal.
type socksError byte

func (r socksError) Error() string { return fmt.Sprintf("SOCKS reply %d", byte(r)) }

func asReply(err error, r *socksError) bool {
	return errors.As(err, r)
}

// socksDial connects to target through a SOCKS5 proxy.
func socksDial(proxy, target string) (*net.TCPConn, error) {
	raw, err := net.DialTimeout("tcp", proxy, 10*time.Second)
	if err != nil {
		return nil, err
	}
	conn := raw.(*net.TCPConn)
	fail := func(err error) (*net.TCPConn, error) {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	to, err := netip.ParseAddrPort(target)
	if err != nil {
		return fail(err)
	}
	request := []byte{5, 1, 0, 5, 1, 0, 1}
	if to.Addr().Is6() {
		request[6] = 4
	}
	request = append(request, to.Addr().AsSlice()...)
	request = binary.BigEndian.AppendUint16(request, to.Port())
	if _, err := conn.Write(request); err != nil {
		return fail(err)
	}
	answer := make([]byte, 2+4)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fail(err)
	}
	rest := 4 + 2
	if answer[5] == 4 {
		rest = 16 + 2
	}
	if _, err := io.ReadFull(conn, make([]byte, rest)); err != nil {
		return fail(err)
	}
	if answer[3] != 0 {
		return fail(socksError(answer[3]))
	}
	return conn, nil
}

// begin asks for so many bytes through a device, and returns when they have begun to come
// and wait for receive.
func (d *device) begin(far *origin.Server, size int64) net.Conn {
	d.t.Helper()
	conn := d.open(far.Addr())
	if _, err := fmt.Fprintf(conn, "GET /%d HTTP/1.0\r\nHost: far\r\n\r\n", size); err != nil {
		d.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		d.t.Fatal(err)
	}
	return conn
}

// receive reads an answer over HTTP to its end, and notes how long nothing came.
func receive(conn net.Conn, size int64, want string, longest *time.Duration) error {
	head := make([]byte, 0, 512)
	for one := make([]byte, 1); len(head) < 4 || string(head[len(head)-4:]) != "\r\n\r\n"; head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return err
		}
	}
	sum, buf := sha256.New(), make([]byte, 32<<10)
	var got int64
	for last := time.Now(); ; {
		n, err := conn.Read(buf)
		*longest = max(*longest, time.Since(last))
		last = time.Now()
		got += int64(n)
		_, _ = sum.Write(buf[:n]) // never fails
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
	if got != size || hex.EncodeToString(sum.Sum(nil)) != want {
		return fmt.Errorf("%d of %d bytes came, or were changed", got, size)
	}
	return nil
}
