package knock

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// A Key is what a service gives to its devices and to its gateways: 32 random bytes.
//
// Printing or logging one shows a placeholder. [Key.MarshalText] tells what it is, and
// so does whatever encodes a value as JSON or YAML that holds a Key, slog's JSON
// handler too. In an unexported field, or told %p, fmt prints its bytes.
type Key [32]byte

// keySize is the length of a key's text in characters.
const keySize = 43

const placeholder = "[knock key]"

// String returns a placeholder.
func (Key) String() string { return placeholder }

// Format prints the placeholder whatever the verb: as an array, a Key would be
// printed byte by byte for some.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// GoString returns a placeholder.
func (k Key) GoString() string { return k.String() }

// LogValue returns a placeholder.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns the key itself: 43 characters of base64url without padding.
// The error is always nil.
func (k Key) MarshalText() ([]byte, error) {
	return base64url.AppendEncode(nil, k[:]), nil
}

// UnmarshalText sets the key to what MarshalText returned. It takes no other way to
// write the same bytes. The error tells nothing of the text, and the key stays as it
// was.
func (k *Key) UnmarshalText(text []byte) error {
	var key Key
	if len(text) != keySize {
		return errKeyText
	}
	// Fewer bytes are decoded without an error where the text has line breaks.
	if n, err := base64url.Decode(key[:], text); err != nil || n != len(key) {
		return errKeyText
	}
	*k = key
	return nil
}

var errKeyText = errors.New("knock key: not 43 characters of base64url without padding")
