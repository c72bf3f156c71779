package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	tokenPrefix = "hvt1"
	secretChars = 43 // 32 bytes in unpadded base64url
)

// ErrToken says that a text is not an API token. It never quotes the text.
var ErrToken = errors.New("not an API token: it looks like hvt1. and 43 letters, digits, - or _, maybe followed by a dot and 43 more")

// Token is an operator's API token. It prints as a placeholder, so that it
// cannot end up in an error or a log by accident; Reveal is the way to its text.
// The zero Token is no token.
type Token struct {
	secret string
	pin    *tlspin.Pin
}

// ParseToken reads the text form hvt1.SECRET or hvt1.SECRET.PIN. The error is ErrToken.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != tokenPrefix || !isSecret(parts[1]) {
		return Token{}, ErrToken
	}
	token := Token{secret: parts[1]}
	if len(parts) == 3 {
		pin, err := tlspin.Parse(parts[2])
		if err != nil {
			return Token{}, ErrToken
		}
		token.pin = &pin
	}
	return token, nil
}

// LooksLikeToken reports whether a text is meant to be a token, be it damaged.
func LooksLikeToken(text string) bool {
	text = strings.TrimSpace(text)
	return text == "-" || strings.HasPrefix(text, tokenPrefix+".")
}

func isSecret(text string) bool {
	if len(text) != secretChars {
		return false
	}
	_, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil
}

// IsZero reports whether there is no token.
func (t Token) IsZero() bool { return t.secret == "" }

// Pin is the pin of the authority that signed the service's certificate, or
// nil when the certificate is to be judged as any other.
func (t Token) Pin() *tlspin.Pin { return t.pin }

// WithPin returns the token carrying pin.
func (t Token) WithPin(pin tlspin.Pin) Token {
	t.pin = &pin
	return t
}

// Reveal returns the whole text of the token, for the file that keeps it.
func (t Token) Reveal() string {
	if t.pin == nil {
		return t.bearer()
	}
	return t.bearer() + "." + t.pin.String()
}

// bearer is what the service gets to see: the pin is none of its business.
func (t Token) bearer() string { return tokenPrefix + "." + t.secret }

// String returns a placeholder.
func (t Token) String() string { return tokenPrefix + ".(hidden)" }

// GoString returns a placeholder.
func (t Token) GoString() string { return t.String() }

// LogValue returns a placeholder.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText refuses: whoever stores a token says so with Reveal.
func (t Token) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("api token: %w", errors.ErrUnsupported)
}

var secrets = regexp.MustCompile(`hvt1\.[\w-]{8,}(\.[\w-]+)?|(?i:\bcode=[a-z2-7]{8,})|(?i:\bss://[^\s'"]{8,})`)

// Hide replaces whatever looks like a token, a one-time code or an access key in text. It is
// the last fence before an error reaches the screen: a token in the wrong
// argument would otherwise be quoted back.
func Hide(text string) string { return secrets.ReplaceAllString(text, "(hidden)") }
