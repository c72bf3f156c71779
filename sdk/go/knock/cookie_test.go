package knock

import (
	"net/http"
	"strings"
	"testing"
)

func TestCookieNamesAreTokens(t *testing.T) {
	for name, want := range map[string]bool{
		DefaultCookie:                        true,
		"a":                                  true,
		"__Host-session_id.v1":               true,
		"!#$%&'*+-.^_`|~":                    true,
		strings.Repeat("x", MaxCookieName):   true,
		strings.Repeat("x", MaxCookieName+1): false,
		"":                                   false,
		" sid":                               false,
		"s id":                               false,
		"sid\t":                              false,
		"sid=":                               false,
		"sid;":                               false,
		"s,d":                                false,
		`s"d`:                                false,
		"s(d":                                false,
		"s/d":                                false,
		"s\x00d":                             false,
		"s\x7fd":                             false,
		"sid\r\n":                            false,
		"süd":                                false,
	} {
		if err := ValidCookieName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A token is what net/http takes for a cookie's name.
func TestCookieNamesAreThoseOfHTTP(t *testing.T) {
	for c := range 256 {
		name := "s" + string([]byte{byte(c)})
		theirs := (&http.Cookie{Name: name, Value: "v"}).Valid() == nil
		if ours := ValidCookieName(name) == nil; ours != theirs {
			t.Errorf("%q: %t here, %t in net/http", name, ours, theirs)
		}
	}
}
