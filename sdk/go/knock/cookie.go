package knock

import (
	"fmt"
	"strings"
)

// DefaultCookie is the name of the cookie that carries the knock where the service
// has not chosen another.
const DefaultCookie = "sid"

// MaxCookieName is the longest name of a cookie that a service can choose, in bytes.
const MaxCookieName = 64

// ValidCookieName returns nil when name can be the name of the cookie that carries
// the knock: a token of RFC 6265 of 1 to [MaxCookieName] bytes.
func ValidCookieName(name string) error {
	if name == "" || len(name) > MaxCookieName {
		return fmt.Errorf("cookie name of %d bytes, want 1 to %d", len(name), MaxCookieName)
	}
	for i := range len(name) {
		if !isTokenByte(name[i]) {
			return fmt.Errorf("cookie name has %q, which no cookie's name can have", name[i])
		}
	}
	return nil
}

// isTokenByte reports whether c may be in a token of RFC 6265, which is that of
// RFC 2616: printable ASCII but the separators.
func isTokenByte(c byte) bool {
	return '!' <= c && c <= '~' && !strings.ContainsRune(`()<>@,;:\"/[]?={}`, rune(c))
}
