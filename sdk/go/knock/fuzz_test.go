package knock

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzVerify tries texts as knocks: what is accepted is what the key makes of the
// same head, for this host and no other.
func FuzzVerify(f *testing.F) {
	for _, v := range load(f) {
		if keys := v.keys(); len(keys) > 0 {
			f.Add(keys[0][:], v.Host, v.Knock, v.Now)
		}
	}
	f.Fuzz(func(t *testing.T, material []byte, host, text string, seconds int64) {
		var key Key
		copy(key[:], material)
		key[0] |= 1 // not the key that was not set
		now := time.Unix(seconds, 0)
		valid := false
		n := allocated(4096, func() { valid = Verify([]Key{key}, host, text, now) })
		if n > 4096 {
			t.Errorf("%d bytes allocated for %d of host and %d of text", n, len(host), len(text))
		}
		if valid {
			raw, err := base64url.DecodeString(text)
			if err != nil || seal(key, host, [headSize]byte(raw)) != text {
				t.Errorf("%q is accepted and not what the key makes: %v", text, err)
			}
		}
		own := Mint(key, host, now)
		for name, tc := range map[string]struct {
			host, text string
			want       bool
		}{
			"own":                {host, own, true},
			"own, of capitals":   {asciiUpper(host), own, true},
			"own, another host":  {host + "x", own, false},
			"own, something cut": {host, own[:len(own)-1], false},
			"own, text after it": {host, own + text, text == ""},
		} {
			if got := Verify([]Key{key}, tc.host, tc.text, now); got != tc.want {
				t.Errorf("%s: %t for %q, host %q", name, got, tc.text, tc.host)
			}
		}
	})
}

func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
	return string(b)
}

// FuzzKey reads keys: there is one text for each.
func FuzzKey(f *testing.F) {
	f.Add([]byte(keyText))
	f.Add([]byte(keyText[:42] + "9"))
	f.Add([]byte(keyText[:20] + "\n" + keyText[21:]))
	f.Fuzz(func(t *testing.T, text []byte) {
		var key Key
		var err error
		limit := uint64(2*len(text) + 4096)
		if n := allocated(limit, func() { err = key.UnmarshalText(text) }); n > limit {
			t.Errorf("%d bytes allocated for %d", n, len(text))
		}
		if err != nil {
			return
		}
		if again, err := key.MarshalText(); err != nil || string(again) != string(text) {
			t.Errorf("%q was read as %q, %v", text, again, err)
		}
	})
}

// FuzzCookieName judges names as net/http does, but for the length.
func FuzzCookieName(f *testing.F) {
	f.Add(DefaultCookie)
	f.Add("s d")
	f.Fuzz(func(t *testing.T, name string) {
		theirs := (&http.Cookie{Name: name, Value: "v"}).Valid() == nil && !strings.Contains(name, "\x00")
		if ours := ValidCookieName(name) == nil; ours != (theirs && len(name) <= MaxCookieName) {
			t.Errorf("%q: %t here, %t in net/http", name, ours, theirs)
		}
	})
}
