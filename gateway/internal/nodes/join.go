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

	"github.com/httvps/httvps/internal/link"
)

const (
	joinPath   = "/gateway-join"
	joinPrefix = "HTTVPS1 join\x00"
	maxNonce   = 256

	// codeSpent is the problem's code for a join code that is unknown, used or
	// expired, which the control plane does not tell apart.
	codeSpent = "invalid_invitation"
)

var base64url = base64.RawURLEncoding

var (
	// ErrJoined says that the data directory holds a membership already.
	ErrJoined = errors.New("this gateway has joined a service already")

	// ErrLinkSpent says that the control plane does not take the link's code.
	ErrLinkSpent = errors.New("the join link was used or has expired; make another with httvpsctl gateway create")
)

// Membership is how a gateway joins.
type Membership struct {
	Link    string // the join link; secret until used
	Dir     string // where key and state are kept; made when missing
	URL     string // where devices will reach the tunnel
	Version string
	Local   Dial // nil: the control plane is where the link says
}

// joinLink is a join link taken apart. Its code is secret.
type joinLink struct {
	base *url.URL
	code string
	pin  string
}

// parseLink reads https://host[:port][/prefix]/gateway-join#code=…[,pin=…].
// Its errors do not repeat the link.
func parseLink(text string) (joinLink, error) {
	whole, fragment, _ := strings.Cut(strings.TrimSpace(text), "#")
	u, err := url.Parse(whole)
	if err != nil {
		return joinLink{}, errors.New("the join link is damaged: it is not a URL")
	}
	prefix, ok := strings.CutSuffix(u.Path, joinPath)
	switch {
	case u.Scheme != "https":
		return joinLink{}, errors.New("the join link is damaged: it does not begin with https://")
	case strings.HasSuffix(u.Path, "/join"):
		return joinLink{}, errors.New("the link is not a join link: it is an invitation for a device; `httvpsctl gateway create` makes join links")
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || !ok:
		return joinLink{}, errors.New("the join link is damaged: want https://host/gateway-join#code=…")
	}
	code, pin, err := link.Parse(fragment)
	if err != nil {
		return joinLink{}, fmt.Errorf("the join link is damaged: %w", err)
	}
	return joinLink{
		base: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: prefix},
		code: code,
		pin:  pin,
	}, nil
}

// Join makes this gateway a member of the service that the link is from, and
// writes key and state to the directory. It may be repeated after a lost answer.
// Joining where a membership is kept already is [ErrJoined], with a link that was
// used or has expired [ErrLinkSpent].
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
		return State{}, fmt.Errorf("%w: %s; serve it, or join as another gateway with another data directory", ErrJoined, filepath.Join(m.Dir, stateFile))
	case !errors.Is(err, fs.ErrNotExist):
		return State{}, fmt.Errorf("data directory: %w", err)
	}
	client, err := newHTTP(from.base, from.pin, m.Local)
	if err != nil {
		return State{}, fmt.Errorf("the join link is damaged: %w", err)
	}
	defer client.CloseIdleConnections()
	key, err := openKey(m.Dir)
	if err != nil {
		return State{}, err
	}
	state, err := join(ctx, &api{base: from.base.String(), http: client}, key, from.code, m)
	if status, ok := errors.AsType[*StatusError](err); ok && status.Code == codeSpent {
		return State{}, ErrLinkSpent
	}
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
