// Package sslink reads and writes ss:// links, the form in which the access keys
// of Outline and other Shadowsocks servers are handed around:
//
//	ss://BASE64(cipher:password)@HOST:PORT[/][?outline=1][&prefix=TEXT][#TAG]   (SIP002)
//	ss://cipher:password@HOST:PORT…                                            (the same, percent-encoded)
//	ss://BASE64(cipher:password@HOST:PORT)[?…][#TAG]                           (legacy)
//
// A link is a secret as a whole. No error of this package repeats a part of one,
// and a [Link] does not show its password or prefix when it is printed or logged.
package sslink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxLength is how many bytes a link may have.
	MaxLength = 2048
	// MaxPassword and MaxTag are how many bytes these may have.
	MaxPassword = 256
	MaxTag      = 256

	// saltLeft is how many bytes of a salt a prefix must leave to chance: two
	// connections with the same salt under one key would give their content away.
	saltLeft = 8
)

// Cipher is one of the AEAD ciphers that Outline servers speak.
type Cipher string

// The ciphers. A session's salt is as long as the key.
const (
	ChaCha20IETFPoly1305 Cipher = "chacha20-ietf-poly1305"
	AES256GCM            Cipher = "aes-256-gcm"
	AES192GCM            Cipher = "aes-192-gcm"
	AES128GCM            Cipher = "aes-128-gcm"
)

// Ciphers returns all of them, the one that Outline gives out first.
func Ciphers() []Cipher { return []Cipher{ChaCha20IETFPoly1305, AES256GCM, AES192GCM, AES128GCM} }

// KeySize is the length of a cipher's key, and of the salt at the beginning of
// each connection, in bytes; 0 for what is no cipher of this package.
func (c Cipher) KeySize() int {
	switch c {
	case ChaCha20IETFPoly1305, AES256GCM:
		return 32
	case AES192GCM:
		return 24
	case AES128GCM:
		return 16
	default:
		return 0
	}
}

// Link is what an ss:// link says. Those that [Parse] returns are valid.
type Link struct {
	// Host is an IP address, without brackets, or a name in small letters.
	Host     string
	Port     uint16
	Cipher   Cipher
	Password string
	// Prefix is what the salt of a TCP connection begins with, mostly empty.
	Prefix []byte
	// Outline says that the link calls its server an Outline server. Anybody can
	// write that into a link.
	Outline bool
	// Tag is what people call it; it may be empty.
	Tag string
}

// Parse reads a link. Errors read on from something like "the access key is
// damaged: ".
func Parse(text string) (Link, error) {
	if len(text) > MaxLength {
		return Link{}, fmt.Errorf("it has more than %d bytes", MaxLength)
	}
	rest, err := afterScheme(text)
	if err != nil {
		return Link{}, err
	}
	var l Link
	rest, tag, _ := strings.Cut(rest, "#")
	if l.Tag, err = parseTag(tag); err != nil {
		return Link{}, err
	}
	if i := strings.IndexFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f }); i >= 0 {
		return Link{}, errors.New("it has a space or a character beyond ASCII in front of its name")
	}
	rest, query, _ := strings.Cut(rest, "?")
	var address string
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		err = l.account(rest[:at])
		address = rest[at+1:]
	} else {
		address, err = l.legacy(rest)
	}
	if err == nil {
		err = l.address(strings.TrimSuffix(address, "/"))
	}
	if err == nil {
		err = l.query(query)
	}
	if err != nil {
		return Link{}, err
	}
	return l, nil
}

func afterScheme(text string) (string, error) {
	scheme, rest, found := strings.Cut(text, "://")
	switch {
	case found && strings.EqualFold(scheme, "ss"):
		return rest, nil
	case found && strings.EqualFold(scheme, "ssconf"):
		return "", errors.New("it is a dynamic key (ssconf://), which only says where the key is: open its address with https:// in place of ssconf:// and take the ss:// link from there")
	case found && strings.EqualFold(scheme, "https"):
		return "", errors.New("it is a web address: what is wanted is an access key, which begins with ss://")
	default:
		return "", errors.New("it does not begin with ss://")
	}
}

func parseTag(text string) (string, error) {
	tag, err := url.PathUnescape(text)
	if err != nil {
		return "", errors.New("its name, behind the #, has a % that two hexadecimal digits do not follow")
	}
	if !utf8.ValidString(tag) || strings.ContainsFunc(tag, unicode.IsControl) {
		return "", errors.New("its name, behind the #, is not text")
	}
	if len(tag) > MaxTag {
		return "", fmt.Errorf("its name, behind the #, has more than %d bytes", MaxTag)
	}
	return tag, nil
}

// account reads what stands in front of the @ of a SIP002 link. Neither form of
// base64 has a colon, so it is plain what is not encoded.
func (l *Link) account(text string) error {
	plain, err := url.PathUnescape(text)
	if err != nil {
		return errors.New("in front of the @, a % is not followed by two hexadecimal digits")
	}
	if strings.ContainsRune(text, '@') {
		return errors.New("it has more than one @: write one in a password as %40")
	}
	if !strings.ContainsRune(plain, ':') {
		if plain, err = decode(plain); err != nil {
			return errors.New("what stands in front of the @ is neither cipher:password nor that in base64: it was cut off or altered")
		}
	}
	return l.secret(plain)
}

// legacy reads the form in which everything is encoded together, and returns the
// address.
func (l *Link) legacy(text string) (string, error) {
	plain, err := decode(text)
	if err != nil {
		return "", errors.New("it has no @, and is not base64 either: it was cut off or altered")
	}
	at := strings.LastIndexByte(plain, '@')
	if at < 0 {
		return "", errors.New("it has no server: an @ and the server's address are missing")
	}
	return plain[at+1:], l.secret(plain[:at])
}

// secret reads cipher:password. A password may have colons.
func (l *Link) secret(text string) error {
	name, password, found := strings.Cut(text, ":")
	if !found {
		return errors.New("a colon between cipher and password is missing")
	}
	l.Cipher, l.Password = Cipher(strings.ToLower(name)), password
	if l.Cipher.KeySize() == 0 {
		return fmt.Errorf("its cipher is none of %s", cipherNames)
	}
	return checkPassword(password)
}

const cipherNames = "chacha20-ietf-poly1305, aes-256-gcm, aes-192-gcm and aes-128-gcm (older ones are not safe, Shadowsocks 2022 is not spoken)"

func checkPassword(password string) error {
	switch {
	case password == "":
		return errors.New("its password is empty")
	case len(password) > MaxPassword:
		return fmt.Errorf("its password has more than %d bytes", MaxPassword)
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("its password is not text: the link was cut off or altered")
	default:
		return nil
	}
}

// decode reads base64 in either alphabet, with or without padding.
func decode(text string) (string, error) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder would pass over
		return "", errors.New("it has a line end")
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	if bare := strings.TrimRight(text, "="); bare != text {
		if len(text)%4 != 0 || len(text)-len(bare) > 2 {
			return "", errors.New("it has a wrong padding")
		}
		text = bare
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	return string(raw), err
}

func (l *Link) address(text string) error {
	host, port, err := splitAddress(text)
	if err != nil {
		return err
	}
	if l.Host, err = Host(host); err != nil {
		return err
	}
	l.Port, err = parsePort(port)
	return err
}

func splitAddress(text string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, port, found := strings.Cut(inner, "]")
		if !found {
			return "", "", errors.New("the [ in its server's address is not closed")
		}
		if address, err := netip.ParseAddr(host); err != nil || !address.Is6() {
			return "", "", errors.New("what stands in [ ] is not an IPv6 address")
		}
		if port, found = strings.CutPrefix(port, ":"); !found {
			return "", "", errors.New("its server has no port")
		}
		return host, port, nil
	}
	host, port, found := strings.Cut(text, ":")
	switch {
	case strings.Contains(port, ":"):
		return "", "", errors.New("its server's address has several colons: write an IPv6 address as [ADDRESS]:PORT")
	case strings.Contains(port, "/"):
		return "", "", errors.New("it has a path behind its server's port, which says nothing that could be followed")
	case !found:
		return "", "", errors.New("its server has no port")
	default:
		return host, port, nil
	}
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || text[0] == '0' {
		return 0, errors.New("its server's port is not a number from 1 to 65535")
	}
	return uint16(port), nil
}

// Host returns a host in the form that a Link has it in: an IP address as short
// as can be, or a name in small letters. Errors read on as those of Parse.
func Host(text string) (string, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		switch {
		case address.Zone() != "":
			return "", errors.New("its server's address has a zone (%), which means something on one machine only")
		case address.IsUnspecified(), address.IsMulticast():
			return "", errors.New("its server's address is not that of one machine")
		}
		return address.Unmap().String(), nil
	}
	switch {
	case text == "":
		return "", errors.New("its server has no name and no address")
	case strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }):
		return "", errors.New("its server's name has letters beyond ASCII: write it in the form that begins with xn--")
	case !isName(text):
		return "", errors.New("its server is neither a host name nor an IP address")
	}
	return strings.ToLower(text), nil
}

// isName reports whether text is a host name that nobody could take for an
// address, as some take 127.1 and 0x7f000001.
func isName(text string) bool {
	if len(text) > 253 {
		return false
	}
	labels := strings.Split(text, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, letters+digits+"-") != "" {
			return false
		}
	}
	last := strings.ToLower(labels[len(labels)-1])
	hex, isHex := strings.CutPrefix(last, "0x")
	return strings.Trim(last, digits) != "" && (!isHex || strings.Trim(hex, digits+"abcdef") != "")
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func (l *Link) query(text string) error {
	if text == "" {
		return nil
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(text, "&") {
		name, raw, _ := strings.Cut(part, "=")
		value, err := url.QueryUnescape(raw)
		switch {
		case err != nil:
			return errors.New("behind the ?, a % is not followed by two hexadecimal digits")
		case seen[name]:
			return errors.New("it says something twice behind the ?")
		}
		seen[name] = true
		switch name {
		case "outline":
			if l.Outline = value == "1"; !l.Outline {
				return errors.New("its outline= is not 1")
			}
		case "prefix":
			if l.Prefix, err = parsePrefix(value); err != nil {
				return err
			}
			if err := CheckPrefix(l.Cipher, l.Prefix); err != nil {
				return err
			}
		case "plugin":
			return errors.New("it wants a plugin, which is not spoken here")
		default:
			return errors.New("behind the ? it says something that is not known here: want outline=1 and prefix= at most")
		}
	}
	return nil
}

// parsePrefix turns characters into the bytes of their numbers, as Outline does.
func parsePrefix(text string) ([]byte, error) {
	var prefix []byte
	for _, r := range text {
		if r > 0xff { // as is what stands for bytes that are not UTF-8
			return nil, errors.New("its prefix has a character beyond U+00FF: write each byte as the character with its number, in UTF-8 and percent-encoded")
		}
		prefix = append(prefix, byte(r))
	}
	return prefix, nil
}

// CheckPrefix says whether a cipher's salt may begin with prefix.
func CheckPrefix(cipher Cipher, prefix []byte) error {
	if limit := cipher.KeySize() - saltLeft; len(prefix) > limit {
		return fmt.Errorf("its prefix has %d bytes, want at most %d with this cipher: the rest of the salt must be random", len(prefix), limit)
	}
	return nil
}

// Reveal writes the link, the secret included, in SIP002's form.
func (l Link) Reveal() string {
	var text strings.Builder
	text.WriteString("ss://")
	text.WriteString(base64.RawURLEncoding.EncodeToString([]byte(string(l.Cipher) + ":" + l.Password)))
	text.WriteByte('@')
	text.WriteString(l.Address())
	separator := "/?"
	if l.Outline {
		text.WriteString(separator + "outline=1")
		separator = "&"
	}
	if len(l.Prefix) > 0 {
		runes := make([]rune, 0, len(l.Prefix))
		for _, b := range l.Prefix {
			runes = append(runes, rune(b))
		}
		// A space as %20 is read alike by those to whom + is a plus.
		text.WriteString(separator + "prefix=" + strings.ReplaceAll(url.QueryEscape(string(runes)), "+", "%20"))
	}
	if l.Tag != "" {
		text.WriteString("#" + url.PathEscape(l.Tag))
	}
	return text.String()
}

// Address is HOST:PORT.
func (l Link) Address() string {
	return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port)))
}

// String says which link it is, without its secret.
func (l Link) String() string { return "ss://(secret)@" + l.Address() }

// GoString is String: %#v shows no secret either.
func (l Link) GoString() string { return l.String() }

// LogValue is String, for slog.
func (l Link) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalText refuses: what writes a Link into JSON or the like would write its
// password.
func (l Link) MarshalText() ([]byte, error) {
	return nil, errors.New("an ss:// link is a secret: write what is needed of it")
}
