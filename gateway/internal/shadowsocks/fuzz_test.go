package shadowsocks

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// reading is a lazy reader of a plain one.
type reading struct{ r io.Reader }

func (r reading) ReadLazy(space lazy.Space) (int, error) {
	n, err := r.r.Read(space.Take())
	if n == 0 {
		space.Return(false)
	}
	return n, err
}

// FuzzStream: whatever a server sends, it is refused or it is what the key's owner
// sent, and the pieces it comes in make no difference.
func FuzzStream(f *testing.F) {
	list := vectors(f)
	for _, v := range list {
		f.Add([]byte(v.Stream), uint16(100))
		f.Add([]byte(v.Stream[:len(v.Stream)-1]), uint16(1))
		f.Add(append(bytes.Clone(v.Salt), v.Packet...), uint16(20_000))
	}
	f.Add([]byte{}, uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, space uint16) {
		size := int(space)%20_000 + 1
		for _, v := range list {
			got, err := readAll(newKey(t, v.Cipher, v.Password), bytes.NewReader(stream), size)
			again, errAgain := readAll(newKey(t, v.Cipher, v.Password), iotest.OneByteReader(bytes.NewReader(stream)), 64)
			if !bytes.Equal(got, again) || !errors.Is(err, errAgain) {
				t.Errorf("%s: %d bytes and %v at once, %d and %v byte by byte", v.Cipher, len(got), err, len(again), errAgain)
			}
			if len(got) > 0 && !bytes.HasPrefix(stream, v.Salt) {
				t.Errorf("%s: bytes under a salt that nobody sealed for", v.Cipher)
			}
		}
	})
}

// FuzzChunks: what is under the right key may still be nonsense. lengths are two
// bytes for each chunk.
func FuzzChunks(f *testing.F) {
	f.Add([]byte{0, 3, 0, 0}, []byte("abc"))
	f.Add([]byte{0x3f, 0xff, 0, 1}, bytes.Repeat([]byte("x"), 0x4000))
	f.Add([]byte{0x40, 0}, bytes.Repeat([]byte("x"), 0x4000))
	f.Fuzz(func(t *testing.T, lengths, payload []byte) {
		k := newKey(t, "aes-128-gcm", "fuzz")
		salt := make([]byte, 16)
		aead, err := k.session(salt)
		if err != nil {
			t.Fatal(err)
		}
		var n nonce
		stream, want, broken := bytes.Clone(salt), []byte(nil), false
		for len(lengths) >= 2 {
			size := int(lengths[0])<<8 | int(lengths[1])
			p := payload[:min(size, len(payload))]
			payload = payload[len(p):]
			stream = aead.Seal(stream, n[:], lengths[:2], nil)
			n.next()
			stream = aead.Seal(stream, n[:], p, nil)
			n.next()
			lengths = lengths[2:]
			broken = broken || size == 0 || size > MaxPayload || len(p) != size
			if !broken {
				want = append(want, p...)
			}
		}
		got, err := readAll(k, bytes.NewReader(stream), 5000)
		if !bytes.Equal(got, want) || err == nil || broken == errors.Is(err, io.EOF) && len(want) > 0 {
			t.Errorf("%d bytes and %v, want %d, broken: %v", len(got), err, len(want), broken)
		}
	})
}

func FuzzPacket(f *testing.F) {
	list := vectors(f)
	for _, v := range list {
		f.Add([]byte(v.Packet))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, v := range list {
			from, payload, err := newKey(t, v.Cipher, v.Password).OpenPacket(bytes.Clone(packet))
			if err == nil && (!from.IsValid() || len(payload) > len(packet) || !bytes.HasPrefix(packet, v.Salt)) {
				t.Errorf("%s: %d bytes from %s", v.Cipher, len(payload), from)
			}
		}
	})
}

// FuzzAddress: what is read is what was written.
func FuzzAddress(f *testing.F) {
	f.Add([]byte{1, 192, 0, 2, 1, 0, 53})
	f.Add(append([]byte{4}, bytes.Repeat([]byte{0xfe}, 18)...))
	f.Add([]byte{3, 1, 'a', 0, 80})
	f.Fuzz(func(t *testing.T, b []byte) {
		from, n, err := consumeAddr(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) || n != 0 {
				t.Errorf("%d bytes, %v", n, err)
			}
			return
		}
		if n > len(b) || from.Port() == 0 || from.Addr().Zone() != "" || from.Addr().Is4In6() {
			t.Errorf("%s in %d bytes of %d", from, n, len(b))
		}
		if k := newKey(t, "aes-128-gcm", "fuzz"); b[0] == addrIPv4 {
			packet, err := k.SealPacket(nil, netip.AddrPortFrom(from.Addr(), from.Port()), b)
			if err != nil || len(packet) > len(b)+MaxPacketOverhead {
				t.Errorf("%d bytes, %v", len(packet), err)
			}
			if got, payload, err := newKey(t, "aes-128-gcm", "fuzz").OpenPacket(packet); err != nil || got != from || !bytes.Equal(payload, b) {
				t.Errorf("%s, %v after a round", got, err)
			}
		}
	})
}
