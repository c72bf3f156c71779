package nodes

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

const (
	joinPath   = "/gateway-join"
	joinPrefix = "HTTVPS1 join\x00"
	codeLen    = 26 // 128 bits in base32
	maxNonce   = 256
)

var base64url = base64.RawURLEncoding

// ErrJoined says that the data directory holds a membership already.
var ErrJoined = errors.New("this gateway has joined a service already")

// Membership is how a gateway joins.
type Membership struct {
	Link    string // the join link; secret until used
	Dir     string // where key and state are kept; made when missing
	URL     string // where devices will reach the tunnel
	Version string
}

// link is a join link taken apart. Its code is secret.
type link struct {
	base *url.URL
	code string
	pin  string
}

// parseLink reads https://host[:port][/prefix]/gateway-join#code=…[&pin=…].
// Its errors do not repeat the link.
func parseLink(text string) (link, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return link{}, errors.New("the join link is damaged: it is not a URL")
	}
	fragment, err := url.ParseQuery(u.Fragment)
	prefix, ok := strings.CutSuffix(u.Path, joinPath)
	switch {
	case u.Scheme != "https":
		return link{}, errors.New("the join link is damaged: it does not begin with https://")
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || !ok:
		return link{}, errors.New("the join link is damaged: want https://host/gateway-join#code=…")
	case err != nil || len(fragment["code"]) != 1 || len(fragment["pin"]) > 1:
		return link{}, errors.New("the join link is damaged: want one code behind #")
	}
	code := strings.ToUpper(fragment.Get("code"))
	if len(code) != codeLen || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return link{}, fmt.Errorf("the join link is damaged: its code is not %d letters and digits", codeLen)
	}
	return link{
		base: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: prefix},
		code: code,
		pin:  fragment.Get("pin"),
	}, nil
}

// Join makes this gateway a member of the service that the link is from, and
// writes key and state to the directory. It may be repeated after a lost answer.
// Joining where a membership is kept already is [ErrJoined].
func Join(ctx context.Context, m Membership) (State, error) {
	from, err := parseLink(m.Link)
	if err != nil {
		return State{}, err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return State{}, fmt.Errorf("data directory: %w", err)
	}
	switch _, err := os.Stat(filepath.Join(m.Dir, stateFile)); {
	case err == nil:
		return State{}, fmt.Errorf("%w: %s", ErrJoined, filepath.Join(m.Dir, stateFile))
	case !errors.Is(err, fs.ErrNotExist):
		return State{}, fmt.Errorf("data directory: %w", err)
	}
	client, err := newHTTP(from.base, from.pin)
	if err != nil {
		return State{}, fmt.Errorf("the join link is damaged: %w", err)
	}
	defer client.CloseIdleConnections()
	key, err := openKey(m.Dir)
	if err != nil {
		return State{}, err
	}
	state, err := join(ctx, &api{base: from.base.String(), http: client}, key, from.code, m)
	if err != nil {
		return State{}, fmt.Errorf("join: %w", err)
	}
	state.API, state.Pin = from.base.String(), from.pin
	if err := state.validate(); err != nil {
		return State{}, fmt.Errorf("join: the answer of the control plane is not usable: %w", err)
	}
	return state, saveState(m.Dir, state)
}

func join(ctx context.Context, control *api, key ed25519.PrivateKey, code string, m Membership) (State, error) {
	var challenge struct {
		Nonce string `json:"nonce"`
	}
	if err := control.call(ctx, http.MethodPost, "/api/v1/auth/challenge", struct{}{}, &challenge); err != nil {
		return State{}, err
	}
	nonce, err := base64url.DecodeString(challenge.Nonce)
	if err != nil || len(nonce) == 0 || len(nonce) > maxNonce {
		return State{}, errors.New("the control plane's nonce is not usable")
	}
	public, _ := key.Public().(ed25519.PublicKey)
	hash := sha256.Sum256([]byte(code))
	signed := append([]byte(joinPrefix), hash[:]...)
	signed = append(signed, public...)
	signed = append(signed, nonce...)
	var state State
	err = control.call(ctx, http.MethodPost, "/api/v1/gateway/join", map[string]string{
		"code":       code,
		"public_key": base64url.EncodeToString(public),
		"nonce":      challenge.Nonce,
		"signature":  base64url.EncodeToString(ed25519.Sign(key, signed)),
		"url":        m.URL,
		"version":    m.Version,
	}, &state)
	return state, err
}
