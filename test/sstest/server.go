package sstest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/md5" //nolint:gosec // the protocol's
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the protocol's
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

const maxPayload = 0x3FFF

// Crypt is one side's view of a cipher and a password.
type Crypt struct {
	Size   int // of salt and key
	master []byte
	aead   func([]byte) (cipher.AEAD, error)
}

// NewCrypt panics on a cipher that it does not know.
func NewCrypt(name, password string) *Crypt {
	gcm := func(key []byte) (cipher.AEAD, error) {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	c := &Crypt{aead: gcm}
	switch name {
	case "chacha20-ietf-poly1305":
		c.Size, c.aead = 32, chacha20poly1305.New
	case "aes-256-gcm":
		c.Size = 32
	case "aes-192-gcm":
		c.Size = 24
	case "aes-128-gcm":
		c.Size = 16
	default:
		panic("unknown cipher " + name)
	}
	h := md5.New() //nolint:gosec // the protocol's
	var last []byte
	for len(c.master) < c.Size {
		h.Reset()
		h.Write(last)
		h.Write([]byte(password))
		last = h.Sum(nil)
		c.master = append(c.master, last...)
	}
	c.master = c.master[:c.Size]
	return c
}

// AEAD is the cipher of a salt.
func (c *Crypt) AEAD(salt []byte) cipher.AEAD {
	key, err := hkdf.Key(sha1.New, c.master, salt, "ss-subkey", c.Size)
	if err != nil {
		panic(err)
	}
	a, err := c.aead(key)
	if err != nil {
		panic(err)
	}
	return a
}

// Salt returns a new one.
func (c *Crypt) Salt() []byte {
	salt := make([]byte, c.Size)
	_, _ = rand.Read(salt) // never fails
	return salt
}

// nonceOf is the nonce of the n-th use, little-endian.
func nonceOf(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), 0, 0, 0, 0) }

// Writer seals a direction. Its first write sends the salt, too.
type Writer struct {
	W    io.Writer
	salt []byte
	aead cipher.AEAD
	n    uint64
	sent bool
}

// NewWriter begins a direction with salt.
func (c *Crypt) NewWriter(w io.Writer, salt []byte) *Writer {
	return &Writer{W: w, salt: salt, aead: c.AEAD(salt)}
}

// Chunk is p as one chunk, however long it is, with a length that may be a lie.
func (w *Writer) Chunk(p []byte, length int) []byte {
	var out []byte
	if !w.sent {
		out, w.sent = append(out, w.salt...), true
	}
	out = w.aead.Seal(out, nonceOf(w.n), binary.BigEndian.AppendUint16(nil, uint16(length)), nil)
	out = w.aead.Seal(out, nonceOf(w.n+1), p, nil)
	w.n += 2
	return out
}

func (w *Writer) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := min(len(p), maxPayload)
		if _, err := w.W.Write(w.Chunk(p[:n], n)); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// Reader opens a direction.
type Reader struct {
	r    io.Reader
	c    *Crypt
	aead cipher.AEAD
	n    uint64
	rest []byte
}

// NewReader reads the salt with the first bytes.
func (c *Crypt) NewReader(r io.Reader) *Reader { return &Reader{r: r, c: c} }

func (r *Reader) open(size int) ([]byte, error) {
	sealed := make([]byte, size+16)
	if _, err := io.ReadFull(r.r, sealed); err != nil {
		return nil, err
	}
	plain, err := r.aead.Open(nil, nonceOf(r.n), sealed, nil)
	r.n++
	return plain, err
}

// Chunk returns the next one.
func (r *Reader) Chunk() ([]byte, error) {
	if r.aead == nil {
		salt := make([]byte, r.c.Size)
		if _, err := io.ReadFull(r.r, salt); err != nil {
			return nil, err
		}
		r.aead = r.c.AEAD(salt)
	}
	length, err := r.open(2)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(length))
	if size > maxPayload || size == 0 {
		return nil, errors.New("a chunk of " + strconv.Itoa(size))
	}
	return r.open(size)
}

func (r *Reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		chunk, err := r.Chunk()
		if err != nil {
			return 0, err
		}
		r.rest = chunk
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Target reads the address that the first bytes begin with, as host:port.
func Target(r io.Reader) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return "", err
	}
	var size int
	switch head[0] {
	case 1:
		size = 4
	case 4:
		size = 16
	case 3:
		if _, err := io.ReadFull(r, head[1:]); err != nil {
			return "", err
		}
		size = int(head[1])
	default:
		return "", errors.New("address of type " + strconv.Itoa(int(head[0])))
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(r, rest); err != nil {
		return "", err
	}
	host := string(rest[:size])
	if head[0] != 3 {
		ip, _ := netip.AddrFromSlice(rest[:size])
		host = ip.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(rest[size:])))), nil
}

// Server is a Shadowsocks server in this process.
type Server struct {
	Addr  netip.AddrPort
	Crypt *Crypt
	// Serve serves one connection; it closes it. Relay does what a server does.
	serve func(*net.TCPConn)
	// dial reaches a target.
	dial func(target string) (net.Conn, error)

	listener *net.TCPListener
	packets  *net.UDPConn
	mu       sync.Mutex // guards the following fields
	open     map[io.Closer]struct{}
	closed   bool
	wg       sync.WaitGroup
	targets  []string
}

// Options change what a server does.
type Options struct {
	// Serve replaces Relay. It owns the connection.
	Serve func(*Server, *net.TCPConn)
	// Dial reaches a target, host:port as the client wrote it, in place of the
	// network.
	Dial func(target string) (net.Conn, error)
	// Addr is where to listen; zero: a free port.
	Addr netip.AddrPort
}

// StartServer serves TCP and UDP on 127.0.0.1 until the test ends.
func StartServer(t *testing.T, cipherName, password string, opts Options) *Server {
	t.Helper()
	addr := opts.Addr
	if !addr.IsValid() {
		addr = freePort(t)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: addr, Crypt: NewCrypt(cipherName, password), listener: l, packets: u, open: make(map[io.Closer]struct{})}
	s.dial = opts.Dial
	if s.dial == nil {
		s.dial = func(target string) (net.Conn, error) { return net.Dial("tcp", target) } //nolint:noctx // loopback
	}
	s.serve = s.Relay
	if opts.Serve != nil {
		s.serve = func(conn *net.TCPConn) { opts.Serve(s, conn) }
	}
	s.wg.Go(s.accept)
	s.wg.Go(s.relayPackets)
	t.Cleanup(s.Close)
	return s
}

// Close ends everything, and waits.
func (s *Server) Close() {
	_, _ = s.listener.Close(), s.packets.Close() // first: who sees an end finds nobody
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Targets are the addresses that streams went to, as the clients wrote them.
func (s *Server) Targets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.targets...)
}

// keep closes c with the server; false: it is closed.
func (s *Server) keep(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) drop(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptTCP()
		if err != nil {
			return
		}
		if !s.keep(conn) {
			return
		}
		s.wg.Go(func() {
			defer s.drop(conn)
			s.serve(conn)
		})
	}
}

// Relay serves a connection as a server does, each direction by itself.
func (s *Server) Relay(conn *net.TCPConn) {
	in := s.Crypt.NewReader(conn)
	name, err := Target(in)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.targets = append(s.targets, name)
	s.mu.Unlock()
	target, err := s.dial(name)
	if err != nil || !s.keep(target) {
		return
	}
	defer s.drop(target)
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(target, in)
		if half, ok := target.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	_, _ = io.Copy(struct{ io.Writer }{s.Crypt.NewWriter(conn, s.Crypt.Salt())}, target)
	_ = conn.CloseWrite()
	up.Wait()
}

// relayPackets answers what one client after the other sends, each datagram from a
// socket of its own.
func (s *Server) relayPackets() {
	buf := make([]byte, 1<<16)
	for {
		n, client, err := s.packets.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		plain, err := s.OpenPacket(buf[:n])
		if err != nil {
			continue
		}
		rest := &slice{plain}
		name, err := Target(rest)
		if err != nil {
			continue
		}
		target, err := net.Dial("udp", name) //nolint:noctx // loopback
		if err != nil || !s.keep(target) {
			continue
		}
		payload := append([]byte(nil), rest.b...)
		s.wg.Go(func() {
			defer s.drop(target)
			if _, err := target.Write(payload); err != nil {
				return
			}
			answer := make([]byte, 1<<16)
			for {
				n, err := target.Read(answer)
				if err != nil {
					return
				}
				from := target.RemoteAddr().(*net.UDPAddr).AddrPort() //nolint:errcheck // what was asked for
				_, _ = s.packets.WriteToUDPAddrPort(s.SealPacket(s.Crypt.Salt(), from, answer[:n]), client)
			}
		})
	}
}

// OpenPacket returns the address and payload in a datagram.
func (s *Server) OpenPacket(packet []byte) ([]byte, error) {
	if len(packet) < s.Crypt.Size {
		return nil, io.ErrUnexpectedEOF
	}
	return s.Crypt.AEAD(packet[:s.Crypt.Size]).Open(nil, nonceOf(0), packet[s.Crypt.Size:], nil)
}

// SealPacket makes a datagram that says it is from an address.
func (s *Server) SealPacket(salt []byte, from netip.AddrPort, payload []byte) []byte {
	plain := []byte{1}
	if from.Addr().Is6() {
		plain[0] = 4
	}
	plain = append(plain, from.Addr().AsSlice()...)
	plain = binary.BigEndian.AppendUint16(plain, from.Port())
	plain = append(plain, payload...)
	return s.Crypt.AEAD(salt).Seal(append([]byte(nil), salt...), nonceOf(0), plain, nil)
}

type slice struct{ b []byte }

func (s *slice) Read(p []byte) (int, error) {
	n := copy(p, s.b)
	s.b = s.b[n:]
	if n < len(p) && len(s.b) == 0 && n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
