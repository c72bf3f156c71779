package shadowsocks_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// block is what the tunnel hands over at once.
const block = 65_504

// sink takes everything and gives what r gives.
type sink struct {
	net.Conn
	r io.Reader
}

func (s sink) Write(p []byte) (int, error) { return len(p), nil }
func (s sink) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s sink) CloseWrite() error           { return nil }
func (s sink) Close() error                { return nil }

func client(b *testing.B, name string, r io.Reader) *shadowsocks.Conn {
	b.Helper()
	conn, err := newKey(b, name, "").Client(sink{r: r}, wire.Addr{Name: "example.com", Port: 443})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bare returns the cipher alone, as the measure of all that is beside it.
func bare(b *testing.B, name string) cipher.AEAD {
	b.Helper()
	var a cipher.AEAD
	var err error
	if name == shadowsocks.DefaultCipher {
		a, err = chacha20poly1305.New(make([]byte, 32))
	} else {
		var c cipher.Block
		if c, err = aes.NewCipher(make([]byte, 32)); err == nil {
			a, err = cipher.NewGCM(c)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	return a
}

var measured = []string{shadowsocks.DefaultCipher, "aes-256-gcm"}

func BenchmarkUp(b *testing.B) {
	for _, name := range measured {
		b.Run(name+"/conn", func(b *testing.B) {
			conn, p := client(b, name, nil), make([]byte, block)
			b.SetBytes(block)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(p); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/bare", func(b *testing.B) {
			a, p, out := bare(b, name), make([]byte, block), make([]byte, 0, 0x4000+64)
			nonce := make([]byte, 12)
			b.SetBytes(block)
			for b.Loop() {
				for rest := p; len(rest) > 0; {
					n := min(len(rest), shadowsocks.MaxPayload)
					out = a.Seal(out[:0], nonce, rest[:n], nil)
					binary.LittleEndian.PutUint64(nonce, binary.LittleEndian.Uint64(nonce)+1)
					rest = rest[n:]
				}
			}
		})
	}
}

// stream gives what a server sends, sealed before the clock runs.
func stream(name string, blocks int) []byte {
	var out bytes.Buffer
	c := sstest.NewCrypt(name, password)
	w := c.NewWriter(&out, c.Salt())
	for range blocks {
		_, _ = w.Write(make([]byte, block))
	}
	return out.Bytes()
}

func BenchmarkDown(b *testing.B) {
	const blocks = 64
	for _, name := range measured {
		sent := stream(name, blocks)
		b.Run(name+"/conn", func(b *testing.B) {
			p := make([]byte, block)
			b.SetBytes(blocks * block)
			b.ReportAllocs()
			for b.Loop() {
				conn := client(b, name, bytes.NewReader(sent))
				for left := blocks * block; left > 0; {
					n, err := conn.Read(p)
					if err != nil {
						b.Fatal(err)
					}
					left -= n
				}
				_ = conn.Close()
			}
		})
		b.Run(name+"/bare", func(b *testing.B) {
			a, out := bare(b, name), make([]byte, 0, 0x4000)
			nonce := make([]byte, 12)
			sealed := a.Seal(nil, nonce, make([]byte, shadowsocks.MaxPayload), nil)
			b.SetBytes(blocks * block)
			for b.Loop() {
				for left := blocks * block; left > 0; left -= shadowsocks.MaxPayload {
					if _, err := a.Open(out, nonce, sealed, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, name := range measured {
		k := newKey(b, name, "")
		payload, buf := make([]byte, 1200), make([]byte, 0, 2048)
		target := netip.MustParseAddrPort("192.0.2.1:443")
		b.Run(name, func(b *testing.B) {
			b.SetBytes(1200)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.SealPacket(buf, target, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
