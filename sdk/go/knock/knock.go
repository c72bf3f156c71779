// Package knock makes and verifies knocks, as docs/03-httvps-protocol.md part 2.1
// defines them: the cookie by which a gateway tells a device from a stranger before
// it shows that it is a gateway.
//
// A knock proves that its maker knows a key which the service gives to all of its
// devices. It hides the gateway and admits nobody, and it names no device. Making
// and verifying one needs no input or output and keeps no state, so the same knock
// is valid again until its time is up.
package knock

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"math"
	"time"
)

const (
	// Size is the length of a knock in characters.
	Size = 44

	// Tolerance is how far the clocks of the two ends may be apart. It is counted
	// in whole minutes, as the time in a knock is.
	Tolerance = 15 * time.Minute
)

// The layout of a knock before its encoding.
const (
	version1 = 1
	label    = "httvps-knock1"

	headSize = 1 + 4 + 12 // version · minutes · random
	macSize  = 16         // of the 32 bytes of HMAC-SHA256
	rawSize  = headSize + macSize
)

// base64url is the notation of knocks and of keys. A knock has no spare bits in its
// last character; a key has two, and Strict asks for zeros there.
var base64url = base64.RawURLEncoding.Strict()

// Mint returns a knock for host by a client whose clock shows now: [Size] characters
// of base64url, which a cookie's value may hold as they are. No two are alike. host
// is the value of the request's Host header; its letters count as lower case.
//
// A clock before 1970 counts as 1970.
func Mint(key Key, host string, now time.Time) string {
	var head [headSize]byte
	head[0] = version1
	binary.BigEndian.PutUint32(head[1:], minutes(now))
	_, _ = rand.Read(head[5:]) // never fails (crypto/rand)
	return seal(key, host, head)
}

// Verify reports whether text is a knock for host that is valid now under one of
// keys, which are those in force. host is the value of the request's Host header as
// it came; its letters count as lower case. The zero Key, which is one that was not
// set, verifies nothing.
//
// How long it takes depends on the lengths of what it is given and on whether text
// has the form and the time of a knock. All of keys are tried, and each mac is
// compared in constant time. The memory it needs does not depend on the input.
func Verify(keys []Key, host, text string, now time.Time) bool {
	if len(text) != Size {
		return false
	}
	var chars [Size]byte
	copy(chars[:], text)
	var raw [rawSize]byte
	// Fewer bytes are decoded without an error where text has line breaks.
	if n, err := base64url.Decode(raw[:], chars[:]); err != nil || n != rawSize {
		return false
	}
	head, mac := [headSize]byte(raw[:]), raw[headSize:]
	apart := int64(binary.BigEndian.Uint32(head[1:])) - int64(minutes(now))
	const most = int64(Tolerance / time.Minute)
	if head[0] != version1 || apart < -most || apart > most {
		return false
	}
	valid := false
	for _, key := range keys {
		want := macOf(key, host, head)
		if hmac.Equal(mac, want[:]) && key != (Key{}) {
			valid = true
		}
	}
	return valid
}

// seal returns the knock that begins with head.
func seal(key Key, host string, head [headSize]byte) string {
	mac := macOf(key, host, head)
	return base64url.EncodeToString(append(head[:], mac[:]...))
}

func macOf(key Key, host string, head [headSize]byte) [macSize]byte {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(label)) // a hash never returns an error
	writeLower(h, host)
	h.Write(head[:])
	return [macSize]byte(h.Sum(nil))
}

// writeLower writes s with A to Z in lower case. It goes through a buffer of a fixed
// size, because a stranger chooses how long s is.
func writeLower(h hash.Hash, s string) {
	var buf [64]byte
	for len(s) > 0 {
		part := buf[:copy(buf[:], s)]
		s = s[len(part):]
		for i, c := range part {
			if 'A' <= c && c <= 'Z' {
				part[i] = c + ('a' - 'A')
			}
		}
		h.Write(part)
	}
}

// minutes returns the whole minutes from the Unix epoch to t, or the nearest number
// that a knock can hold.
func minutes(t time.Time) uint32 {
	return uint32(min(max(t.Unix()/60, 0), math.MaxUint32))
}
