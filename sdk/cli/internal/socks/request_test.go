package socks

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
)

// FuzzRequest: the parser never panics, never reads a byte that belongs to what
// follows, and what it accepts is what was written.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{5, 1, 0, 1, 192, 0, 2, 1, 0, 80})
	f.Add([]byte{5, 1, 0, 3, 1, 'a', 0, 80, 'e', 'a', 'r', 'l', 'y'})
	f.Add([]byte{5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4, 0, 80})
	f.Add([]byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{5, 1, 0, 3, 0, 0, 80})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		req, err := readRequest(r)
		used := in[:len(in)-r.Len()]
		if fault, ok := errors.AsType[*replyError](err); ok && fault.reply == replySucceeded {
			t.Fatal("a fault with the reply for success")
		}
		if err != nil {
			return
		}
		if again := appendRequest(nil, req, used[3]); !bytes.Equal(again, used) {
			t.Fatalf("% x was read as %+v, which is % x", used, req, again)
		}
	})
}

// FuzzGreeting: as FuzzRequest, for the greeting.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte{5, 1, 0})
	f.Add([]byte{5, 2, 1, 2, 5})
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, method := range []byte{methodNone, methodPassword} {
			r := bytes.NewReader(in)
			if readGreeting(r, method) != nil {
				continue
			}
			used := in[:len(in)-r.Len()]
			if len(used) != 2+int(used[1]) || !bytes.Contains(used[2:], []byte{method}) {
				t.Fatalf("% x was accepted", used)
			}
		}
	})
}

// FuzzLogin: as FuzzRequest, for user name and password.
func FuzzLogin(f *testing.F) {
	f.Add([]byte{1, 4, 'a', 'n', 'n', 'a', 2, 'p', 'w', 5})
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		user, password, err := readLogin(r)
		if err != nil {
			return
		}
		again := append(append([]byte{loginVersion, byte(len(user))}, user...), byte(len(password)))
		if again = append(again, password...); !bytes.Equal(again, in[:len(in)-r.Len()]) {
			t.Fatalf("% x was read as %q and %q", in, user, password)
		}
	})
}

func TestEveryCutRequestIsAnError(t *testing.T) {
	for _, whole := range [][]byte{
		{5, 1, 0, 1, 192, 0, 2, 1, 0, 80},
		{5, 1, 0, 3, 3, 'a', '.', 'b', 0, 80},
		{5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80},
	} {
		if _, err := readRequest(bytes.NewReader(whole)); err != nil {
			t.Errorf("% x: %v", whole, err)
		}
		for n := range whole {
			if req, err := readRequest(bytes.NewReader(whole[:n])); err == nil {
				t.Errorf("% x was read as %+v", whole[:n], req)
			}
		}
	}
}

func appendRequest(dst []byte, req request, kind byte) []byte {
	dst = append(dst, version5, req.command, 0, kind)
	if kind == addressName {
		dst = append(dst, byte(len(req.host)))
		dst = append(dst, req.host...)
	} else {
		dst = append(dst, netip.MustParseAddr(req.host).AsSlice()...)
	}
	return append(dst, byte(req.port>>8), byte(req.port))
}
