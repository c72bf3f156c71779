package httvps

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	maxLink    = 2048
	codeLen    = 26 // 128 bits in base32 without padding
	codeDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz234567"
)

// ErrInvitation is what every error of [ParseInvitation] is.
var ErrInvitation = errors.New("invitation link")

// Invitation is a parsed invitation link. Code lets whoever has it enrol a
// device, once: printing or logging an Invitation leaves it out.
type Invitation struct {
	API  string // base URL of the device API
	Code string // upper case
	Pin  string // of the service's own certificate authority; empty: a public certificate
}

// ParseInvitation reads a link as operators hand it out:
//
//	https://host[:port]/<path>/join#code=<26 characters>[,pin=<43 characters>]
//
// Space around the link is ignored, as is the case of the code and any further
// name in the fragment; a name that comes twice is an error. Errors are [ErrInvitation] and say what is wrong without
// repeating the link.
func ParseInvitation(link string) (Invitation, error) {
	inv, err := parseInvitation(strings.TrimSpace(link))
	if err != nil {
		return Invitation{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	return inv, nil
}

func parseInvitation(link string) (Invitation, error) {
	switch {
	case link == "":
		return Invitation{}, errors.New("it is empty")
	case len(link) > maxLink:
		return Invitation{}, fmt.Errorf("it has %d characters, want at most %d", len(link), maxLink)
	}
	whole, fragment, _ := strings.Cut(link, "#")
	u, err := url.Parse(whole)
	if err != nil {
		return Invitation{}, errors.New("it is damaged: not a URL") // err repeats the link
	}
	switch {
	case u.Scheme != "https":
		return Invitation{}, errors.New("want one that begins with https://")
	case fragment == "":
		return Invitation{}, errors.New("the part after # is missing; copy the whole link")
	}
	path, ok := strings.CutSuffix(u.EscapedPath(), "/join")
	if !ok {
		return Invitation{}, errors.New("it does not end in /join#…; is it an invitation for a device?")
	}
	api := "https://" + u.Host + path
	if u.RawQuery != "" || u.User != nil {
		return Invitation{}, errors.New("it is damaged: a query or a user name does not belong there")
	}
	if err := checkBase(api); err != nil {
		return Invitation{}, fmt.Errorf("it is damaged: %w", err)
	}
	values, err := parseFragment(fragment)
	if err != nil {
		return Invitation{}, err
	}
	code := values["code"]
	if err := checkCode(code); err != nil {
		return Invitation{}, err
	}
	pin, has := values["pin"]
	if has {
		if _, err := tlspin.Parse(pin); err != nil {
			return Invitation{}, fmt.Errorf("it is damaged: %w", err)
		}
	}
	return Invitation{API: api, Code: strings.ToUpper(code), Pin: pin}, nil
}

// parseFragment reads NAME=VALUE[,NAME=VALUE]…, in which nothing is escaped.
func parseFragment(fragment string) (map[string]string, error) {
	values := make(map[string]string)
	for part := range strings.SplitSeq(fragment, ",") {
		name, value, _ := strings.Cut(part, "=")
		if _, twice := values[name]; twice {
			return nil, errors.New("it is damaged: it says something twice after the #")
		}
		values[name] = value
	}
	return values, nil
}

// checkCode takes either case.
func checkCode(code string) error {
	if code == "" {
		return errors.New("code is missing; copy the whole link")
	}
	if len(code) != codeLen {
		return fmt.Errorf("code has %d characters, want %d; copy the whole link", len(code), codeLen)
	}
	if strings.Trim(code, codeDigits) != "" {
		return errors.New("code has a character other than A–Z and 2–7; the link is damaged")
	}
	return nil
}

// checkBase checks the base URL of a device API, the form that links and
// profiles hold: https, a host, perhaps a path, no slash at the end. Errors do
// not repeat it.
func checkBase(base string) error {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(base, "/") || len(base) > maxLink {
		return errors.New("want an address like https://host[:port]/path")
	}
	return nil
}

// Fingerprint identifies the invitation without giving its code away.
func (i Invitation) Fingerprint() string {
	sum := sha256.Sum256([]byte("HTTVPS1 invitation\x00" + i.API + "\x00" + i.Code))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// String names the service's host; the code and the path stay hidden.
func (i Invitation) String() string {
	host := ""
	if u, err := url.Parse(i.API); err == nil {
		host = u.Host
	}
	return "invitation to " + host + " [code redacted]"
}

// GoString is [Invitation.String], so that %#v hides the code too.
func (i Invitation) GoString() string { return i.String() }

// LogValue is [Invitation.String] for slog.
func (i Invitation) LogValue() slog.Value { return slog.StringValue(i.String()) }
