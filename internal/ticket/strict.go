package ticket

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const algEdDSA = "EdDSA"

// rawURL refuses non-zero trailing bits, so every value has one spelling.
var rawURL = base64.RawURLEncoding.Strict()

type header struct {
	typ string
	kid string // empty when absent
}

// parseHeader checks the shape of token and its header.
func parseHeader(token string) (header, error) {
	if len(token) > MaxTokenSize {
		return header{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrInvalid, len(token), MaxTokenSize)
	}
	if strings.Count(token, ".") != 2 {
		return header{}, fmt.Errorf("%w: not three parts", ErrInvalid)
	}
	// base64 ignores line breaks; a token that holds one has a second spelling.
	if strings.ContainsAny(token, "\r\n") {
		return header{}, fmt.Errorf("%w: line break", ErrInvalid)
	}
	encoded, _, _ := strings.Cut(token, ".")
	data, err := rawURL.DecodeString(encoded)
	if err != nil {
		return header{}, fmt.Errorf("%w: header is not base64url", ErrInvalid)
	}
	members, err := parseObject(data)
	if err != nil {
		return header{}, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	var h header
	for name := range members {
		switch name {
		case "alg", "typ":
		case "kid":
			if h.kid, err = members.text(name); err != nil {
				return header{}, fmt.Errorf("%w: header: %w", ErrInvalid, err)
			}
		default:
			return header{}, fmt.Errorf("%w: header holds more than alg, typ and kid", ErrInvalid)
		}
	}
	alg, err := members.text("alg")
	if err != nil || alg != algEdDSA {
		return header{}, fmt.Errorf("%w: alg is not %s", ErrInvalid, algEdDSA)
	}
	if h.typ, err = members.text("typ"); err != nil {
		return header{}, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	return h, nil
}

// object is a JSON object whose names are told apart byte by byte and occur
// once. encoding/json alone would fold case and keep the last of duplicates.
type object map[string]json.RawMessage

func parseObject(data []byte) (object, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	members := make(object)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		name, _ := token.(string)
		if _, twice := members[name]; twice {
			return nil, errors.New("a name occurs twice")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("not a JSON object")
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if dec.InputOffset() != int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return nil, errors.New("something follows the JSON object")
	}
	return members, nil
}

// text returns a string of 1 to maxText bytes.
func (o object) text(name string) (string, error) {
	raw, ok := o[name]
	if !ok {
		return "", fmt.Errorf("%s is missing", name)
	}
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil { // null would pass as ""
		return "", fmt.Errorf("%s is not a string", name)
	}
	if s == "" || len(s) > maxText {
		return "", fmt.Errorf("%s is empty or too long", name)
	}
	return s, nil
}

func (o object) integer(name string) (int64, error) {
	raw, ok := o[name]
	if !ok {
		return 0, fmt.Errorf("%s is missing", name)
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not an integer", name)
	}
	return n, nil
}

// second returns a time given in unix seconds, within the years that
// time.Time arithmetic handles.
func (o object) second(name string) (time.Time, error) {
	n, err := o.integer(name)
	if err != nil {
		return time.Time{}, err
	}
	if n < 0 || n > 253402300799 { // the end of the year 9999
		return time.Time{}, fmt.Errorf("%s is out of range", name)
	}
	return time.Unix(n, 0).UTC(), nil
}

// startsBy refuses a nbf that is later than iat: no token of ours is for later, so
// nothing needs to know when that would be. It may be absent.
func (o object) startsBy(issued time.Time) error {
	if _, ok := o["nbf"]; !ok {
		return nil
	}
	if start, err := o.second("nbf"); err != nil || start.After(issued) {
		return errors.New("nbf is not a time before iat")
	}
	return nil
}

// unread implements jwt.Claims, every getter saying "absent", for claims that
// golang-jwt only carries: the package judges them itself.
type unread struct{}

func (unread) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (unread) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (unread) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (unread) GetIssuer() (string, error)                   { return "", nil }
func (unread) GetSubject() (string, error)                  { return "", nil }
func (unread) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// accessClaims is the payload of an access token.
type accessClaims struct {
	unread
	Claims
	issuer   string
	audience string
}

// UnmarshalJSON reads the payload strictly; unknown claims are allowed.
func (c *accessClaims) UnmarshalJSON(data []byte) error {
	o, err := parseObject(data)
	if err != nil {
		return err
	}
	var problems []error
	text := func(name string) string {
		s, err := o.text(name)
		problems = append(problems, err)
		return s
	}
	c.issuer, c.audience = text("iss"), text("aud")
	c.ID, c.Device = text("jti"), text("sub")
	c.Generation, err = o.integer("gen")
	problems = append(problems, err)
	c.IssuedAt, err = o.second("iat")
	problems = append(problems, err)
	c.ExpiresAt, err = o.second("exp")
	problems = append(problems, err, o.startsBy(c.IssuedAt))
	confirmation, err := parseObject(o["cnf"])
	problems = append(problems, err)
	c.KeyThumbprint, err = confirmation.text("jkt")
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return c.validate()
}
