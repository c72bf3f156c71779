package httvps

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// maxTokenLife bounds what a service can claim, so that a wrong number still
// leads to a fresh token within the day.
const maxTokenLife = 24 * time.Hour

// token is an access token and what came with it. Its times are counted from
// the request on this device's monotonic clock: what its calendar says does not
// matter.
type token struct {
	text     string
	renew    time.Time // when to get the next one
	expires  time.Time
	gateways []Gateway // in the service's order
	knock    *Knock    // nil: the service has none
}

func (t token) valid() bool { return t.text != "" && time.Now().Before(t.expires) }

// tokens gets access tokens by proof of possession and keeps the latest, in
// memory only.
type tokens struct {
	service  *api
	key      crypto.Signer
	deviceID string
	device   [16]byte

	learned func(ctx context.Context, gateways []Gateway) // told of each list; may be nil

	turn    chan struct{} // held by who asks the service, so that one does
	renewed chan struct{} // has an item when current was replaced

	mu      sync.Mutex // guards the following fields
	current token
	another chan struct{} // closed and replaced with each token
}

func newTokens(service *api, key crypto.Signer, deviceID string) (*tokens, error) {
	device, err := parseUUID(deviceID)
	if err != nil {
		return nil, err
	}
	return &tokens{
		service:  service,
		key:      key,
		deviceID: deviceID,
		device:   device,
		turn:     make(chan struct{}, 1),
		renewed:  make(chan struct{}, 1),
		another:  make(chan struct{}),
	}, nil
}

func (t *tokens) load() token {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

func (t *tokens) store(tok token) {
	t.mu.Lock()
	t.current = tok
	close(t.another)
	t.another = make(chan struct{})
	t.mu.Unlock()
	select {
	case t.renewed <- struct{}{}:
	default:
	}
}

// changes is closed when there is another token.
func (t *tokens) changes() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.another
}

// drop makes sure that the token is not used again.
func (t *tokens) drop(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.text == text {
		t.current.expires = time.Time{}
	}
}

// get returns a valid token other than stale: the one at hand, or a new one. A
// *RefusedError outside an *UnreachableError is final.
func (t *tokens) get(ctx context.Context, stale string) (token, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return token{}, context.Cause(ctx)
	}
	if tok := t.load(); tok.valid() && tok.text != stale {
		return tok, nil
	}
	tok, err := ask(ctx, t.service, func(ctx context.Context, on way) (token, error) {
		return proven(func() (token, error) { return t.ask(ctx, on) })
	})
	if err != nil {
		return token{}, err
	}
	t.store(tok)
	if t.learned != nil {
		t.learned(ctx, tok.gateways)
	}
	return tok, nil
}

// last returns the latest token, which is over, when nobody could be asked for another
// one; err says why there is none. It is empty when there never was one.
func (t *tokens) last(err error) token {
	if _, open := errors.AsType[*UnreachableError](err); !open {
		return token{}
	}
	return t.load()
}

// gatewayList is the part of an answer that names gateways.
type gatewayList struct {
	Gateways []struct {
		URL    string `json:"url"`
		Region string `json:"region"`
	} `json:"gateways"`
}

// usable returns the gateways as far as they can be used.
func (l gatewayList) usable() []Gateway {
	var gateways []Gateway
	for _, g := range l.Gateways[:min(len(l.Gateways), maxGateways)] {
		if isGateway(g.URL) {
			region := g.Region
			if !isAgent(region) || len(region) > maxRegion {
				region = "" // people are shown it
			}
			gateways = append(gateways, Gateway{URL: g.URL, Region: region})
		}
	}
	return gateways
}

// isGateway reports whether a URL can be that of a gateway.
func isGateway(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "wss" && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && len(text) <= maxLink
}

// ask goes through challenge, signature and token on one way.
func (t *tokens) ask(ctx context.Context, on way) (token, error) {
	text, nonce, err := challenge(ctx, on)
	if err != nil {
		return token{}, err
	}
	signature, err := prove(t.key, "token", t.device[:], nonce)
	if err != nil {
		return token{}, err
	}
	request := map[string]string{"device_id": t.deviceID, "nonce": text, "signature": signature}
	var answer struct {
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"` // seconds
		Knock       *Knock      `json:"knock"`
		gatewayList
	}
	asked := time.Now()
	if err := call(ctx, on, http.MethodPost, "/api/v1/auth/token", "", request, &answer); err != nil {
		return token{}, err
	}
	seconds, err := answer.ExpiresIn.Float64()
	if err != nil || !(seconds >= 1) || answer.AccessToken == "" || len(answer.AccessToken) > wire.MaxToken {
		return token{}, strange("the answer has no valid token")
	}
	if err := answer.Knock.validate(); err != nil {
		return token{}, strange("the answer has no valid %w", err)
	}
	life := time.Duration(min(seconds, maxTokenLife.Seconds()) * float64(time.Second))
	return token{
		text:     answer.AccessToken,
		renew:    asked.Add(life*2/5 + jitter(life/5+1)), // 50 % ± 10 %
		expires:  asked.Add(life),
		gateways: answer.usable(),
		knock:    answer.Knock,
	}, nil
}

// refreshGateways asks for the list that the device may use now. When nobody
// answers, the list at hand stays; the next token brings another.
func (t *tokens) refreshGateways(ctx context.Context) {
	tok := t.load()
	if !tok.valid() {
		return
	}
	answer, err := ask(ctx, t.service, func(ctx context.Context, on way) (answer gatewayList, err error) {
		err = call(ctx, on, http.MethodGet, "/api/v1/gateways", tok.text, nil, &answer)
		return answer, err
	})
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.text == tok.text {
		t.current.gateways = answer.usable()
	}
}

// keepFresh replaces each token in the middle of its life until ctx ends. It
// returns early only with a final refusal.
func (t *tokens) keepFresh(ctx context.Context, b backoff) error {
	for {
		tok := t.load()
		var due <-chan time.Time
		if tok.text != "" {
			due = time.After(time.Until(tok.renew))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.renewed:
			continue
		case <-due:
		}
		err := t.renew(ctx, tok.text, &b)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is no refusal
		}
		if err != nil {
			return err
		}
	}
}

// renew gets a token other than stale, however often it takes. It returns early
// with a final refusal, or when ctx ends.
func (t *tokens) renew(ctx context.Context, stale string, b *backoff) error {
	for {
		_, err := t.get(ctx, stale)
		if err == nil {
			b.reset()
			return nil
		}
		if refused := finalRefusal(err); refused != nil {
			return refused
		}
		if !pause(ctx, b.next(retryAfter(err))) {
			return context.Cause(ctx)
		}
	}
}

// finalRefusal returns the refusal that err is, unless somebody may still
// decide otherwise.
func finalRefusal(err error) *RefusedError {
	if _, open := errors.AsType[*UnreachableError](err); open {
		return nil
	}
	refused, _ := errors.AsType[*RefusedError](err)
	return refused
}

// retryAfter returns how long the service asked to wait.
func retryAfter(err error) time.Duration {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.RetryAfter
	}
	return 0
}
