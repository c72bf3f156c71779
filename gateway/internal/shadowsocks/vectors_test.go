package shadowsocks

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// vector is what another implementation (Python's cryptography, on OpenSSL) made
// of the same input.
type vector struct {
	Cipher, Password                    string
	Key, Salt, Subkey, Stream, Nonce257 hexBytes
	Chunks                              []hexBytes
	Address                             netip.AddrPort
	Payload, Packet                     hexBytes
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(text, &list); err != nil {
		tb.Fatal(err)
	}
	if len(list) != len(Ciphers()) {
		tb.Fatalf("%d vectors, want one for each of %q", len(list), Ciphers())
	}
	return list
}

func newKey(tb testing.TB, cipher, password string) *Key {
	tb.Helper()
	k, err := NewKey(cipher, password, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// TestKeysAreDerivedAsOpenSSLDoes: the first is known from OpenSSL's documentation
// of EVP_BytesToKey, which is MD5 of the password for 16 bytes.
func TestKeysAreDerivedAsOpenSSLDoes(t *testing.T) {
	if got := hex.EncodeToString(masterKey("foobar", 16)); got != "3858f62230ac3c915f300c664312c63f" {
		t.Errorf("foobar: %s", got)
	}
	for _, v := range vectors(t) {
		if got := newKey(t, v.Cipher, v.Password).master; !bytes.Equal(got, v.Key) {
			t.Errorf("%s: %x, want %x", v.Cipher, got, v.Key)
		}
	}
}

func TestChunksAreSealedAsInTheVectors(t *testing.T) {
	for _, v := range vectors(t) {
		k := newKey(t, v.Cipher, v.Password)
		aead, err := k.session(v.Salt)
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{seal: aead}
		got := append([]byte(nil), v.Salt...)
		for _, chunk := range v.Chunks {
			got = c.sealChunk(got, chunk)
		}
		if !bytes.Equal(got, v.Stream) {
			t.Errorf("%s:\n%x, want\n%x", v.Cipher, got, v.Stream)
		}
		for c.nonce = (nonce{}); c.nonce != (nonce{1, 1}); {
			c.nonce.next()
		}
		if got := aead.Seal(nil, c.nonce[:], []byte("late"), nil); !bytes.Equal(got, v.Nonce257) {
			t.Errorf("%s: nonce 257: %x, want %x", v.Cipher, got, v.Nonce257)
		}
	}
}

// readAll opens what a server sent, in the pieces of r and into space of that size.
func readAll(k *Key, r io.Reader, space int) ([]byte, error) {
	c := &Conn{key: k}
	in := reading{r}
	var got []byte
	p := given(make([]byte, space))
	for {
		n, err := c.read.deliver(k, &p)
		if n == 0 && err == nil {
			err = c.read.fill(in, &p)
		}
		got = append(got, p[:n]...)
		if err != nil {
			if c.read.buf != nil {
				err = fmt.Errorf("%w, and a buffer was kept", err)
			}
			return got, err
		}
	}
}

func TestStreamsOfTheVectorsAreOpened(t *testing.T) {
	for _, v := range vectors(t) {
		want := bytes.Join(func() (parts [][]byte) {
			for _, chunk := range v.Chunks {
				parts = append(parts, chunk)
			}
			return parts
		}(), nil)
		for name, r := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
			"by halves": iotest.HalfReader, "with its end": iotest.DataErrReader,
		} {
			for _, space := range []int{1, 7, 299, 300, 1 << 16} {
				got, err := readAll(newKey(t, v.Cipher, v.Password), r(bytes.NewReader(v.Stream)), space)
				if err != io.EOF || !bytes.Equal(got, want) { //nolint:errorlint // io.EOF itself
					t.Errorf("%s, %s into %d bytes: %d bytes, %v", v.Cipher, name, space, len(got), err)
				}
			}
		}
	}
}

// Of each stream every beginning is cut off somewhere else; none passes for a
// whole one, and what was whole in it is delivered.
func TestEveryCutIsSeen(t *testing.T) {
	v := vectors(t)[0]
	ends := map[int]int{} // whole chunks end here, with so many bytes in them
	at, plain := len(v.Salt), 0
	for _, chunk := range v.Chunks {
		at += lengthSize + len(chunk) + tagSize
		plain += len(chunk)
		ends[at] = plain
	}
	delivered := 0
	for size := range len(v.Stream) + 1 {
		got, err := readAll(newKey(t, v.Cipher, v.Password), bytes.NewReader(v.Stream[:size]), 1<<16)
		want := ErrCut
		if n, whole := ends[size]; whole {
			want, delivered = io.EOF, n
		} else if size == 0 {
			want = ErrNoAnswer
		}
		if !errors.Is(err, want) || len(got) != delivered {
			t.Errorf("%d of %d bytes: %d bytes and %v, want %d and %v", size, len(v.Stream), len(got), err, delivered, want)
		}
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	v := vectors(t)[3]
	for i := range len(v.Stream) {
		damaged := bytes.Clone(v.Stream)
		damaged[i] ^= 1 << (i % 8)
		if got, err := readAll(newKey(t, v.Cipher, v.Password), bytes.NewReader(damaged), 1<<16); !errors.Is(err, ErrTag) {
			t.Errorf("byte %d: %d bytes, %v", i, len(got), err)
		}
		if i < len(v.Packet) {
			packet := bytes.Clone(v.Packet)
			packet[i] ^= 1 << (i % 8)
			if _, _, err := newKey(t, v.Cipher, v.Password).OpenPacket(packet); !errors.Is(err, ErrTag) {
				t.Errorf("byte %d of a datagram: %v", i, err)
			}
		}
	}
}

func TestPacketsOfTheVectorsAreOpenedOnce(t *testing.T) {
	for _, v := range vectors(t) {
		k := newKey(t, v.Cipher, v.Password)
		from, payload, err := k.OpenPacket(bytes.Clone(v.Packet))
		if err != nil || from != v.Address || !bytes.Equal(payload, v.Payload) {
			t.Errorf("%s: %q from %s, %v", v.Cipher, payload, from, err)
		}
		if _, _, err := k.OpenPacket(bytes.Clone(v.Packet)); !errors.Is(err, ErrReplay) {
			t.Errorf("%s: again: %v", v.Cipher, err)
		}
		for size := range len(v.Packet) {
			if _, _, err := newKey(t, v.Cipher, v.Password).OpenPacket(bytes.Clone(v.Packet[:size])); err == nil {
				t.Errorf("%s: %d of %d bytes are a datagram", v.Cipher, size, len(v.Packet))
			}
		}
	}
}

func TestAnAnswerComesOnce(t *testing.T) {
	v := vectors(t)[0]
	k := newKey(t, v.Cipher, v.Password)
	if _, err := readAll(k, bytes.NewReader(v.Stream), 100); err != io.EOF { //nolint:errorlint // io.EOF itself
		t.Fatal(err)
	}
	if got, err := readAll(k, bytes.NewReader(v.Stream), 100); !errors.Is(err, ErrReplay) || len(got) > 0 {
		t.Errorf("again: %d bytes, %v", len(got), err)
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		cipher, password string
		prefix           int
		want             string
	}{
		"a cipher without authentication": {"aes-256-cfb", "topsecret", 0, "cipher"},
		"no cipher":                       {"", "topsecret", 0, "cipher"},
		"no password":                     {DefaultCipher, "", 0, "empty"},
		"a book for a password":           {DefaultCipher, strings.Repeat("topsecret", 200), 0, "at most"},
		"a prefix that is all of a salt":  {"aes-128-gcm", "topsecret", 16, "at most 8"},
		"a prefix that leaves too little": {DefaultCipher, "topsecret", 25, "at most 24"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewKey(tc.cipher, tc.password, make([]byte, tc.prefix))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("NewKey = %v, want %q in it", err, tc.want)
			}
		})
	}
	if k := newKey(t, DefaultCipher, "topsecret"); strings.Contains(fmt.Sprintf("%v %+v %#v %s", k, k, k, k), "master") {
		t.Errorf("printed as %#v", k)
	}
}

// A memory of salts forgets, but not the latest.
func TestTheLatestSaltsAreRemembered(t *testing.T) {
	var s salts
	salt := func(i int) []byte { return fmt.Appendf(nil, "salt %d", i) }
	for i := range 5 * saltMemory {
		if !s.add(salt(i)) {
			t.Fatalf("salt %d is not new", i)
		}
		if back := i - saltMemory + 1; back >= 0 && s.add(salt(back)) {
			t.Fatalf("salt %d is forgotten at %d", back, i)
		}
	}
	if n := len(s.now) + len(s.earlier); n > 2*saltMemory {
		t.Errorf("%d are remembered", n)
	}
}
