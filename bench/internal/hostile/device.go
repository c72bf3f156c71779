// Package hostile is a device with valid credentials that keeps to no rule of
// the protocol (docs/03): what a gateway has to survive.
package hostile

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	callTimeout = 20 * time.Second
	maxAnswer   = 1 << 20
)

// session is what is left of a tunnel when nobody minds its rules: a carrier
// behind a handshake.
type session struct {
	conn   *carrier.Conn
	limits wire.Limits
}

// connect enrols a device with an invitation and opens a session at its first
// gateway.
func connect(ctx context.Context, link string, trust *tls.Config) (*session, error) {
	inv, err := httvps.ParseInvitation(link)
	if err != nil {
		return nil, err
	}
	store := httvps.NewMemoryStore()
	profile, err := httvps.Enroll(ctx, inv, httvps.EnrollOptions{Store: store})
	if err != nil {
		return nil, err
	}
	signer, err := store.Key(ctx)
	if err != nil {
		return nil, err
	}
	d := device{key: signer, trust: trust}
	if d.id, err = uuid.Parse(profile.DeviceID); err != nil {
		return nil, err
	}
	if err := d.authorize(ctx, profile.API[0]); err != nil {
		return nil, err
	}
	return d.enter(ctx)
}

// device is an enrolled device.
type device struct {
	key     crypto.Signer
	id      uuid.UUID
	trust   *tls.Config
	token   string
	gateway string
	knock   *httvps.Knock
}

// authorize gets an access token and what comes with it.
func (d *device) authorize(ctx context.Context, api string) error {
	var challenge struct {
		Nonce string `json:"nonce"`
	}
	if err := d.call(ctx, api+"/api/v1/auth/challenge", struct{}{}, &challenge); err != nil {
		return err
	}
	nonce, err := base64.RawURLEncoding.DecodeString(challenge.Nonce)
	if err != nil {
		return err
	}
	signed := append([]byte("HTTVPS1 token\x00"), d.id[:]...)
	signature, err := d.key.Sign(nil, append(signed, nonce...), crypto.Hash(0))
	if err != nil {
		return err
	}
	var answer struct {
		AccessToken string        `json:"access_token"`
		Knock       *httvps.Knock `json:"knock"`
		Gateways    []struct {
			URL string `json:"url"`
		} `json:"gateways"`
	}
	err = d.call(ctx, api+"/api/v1/auth/token", map[string]string{
		"device_id": d.id.String(), "nonce": challenge.Nonce, "signature": base64.RawURLEncoding.EncodeToString(signature),
	}, &answer)
	if err != nil {
		return err
	}
	if len(answer.Gateways) == 0 {
		return errors.New("there is no gateway")
	}
	d.token, d.knock, d.gateway = answer.AccessToken, answer.Knock, answer.Gateways[0].URL
	return nil
}

func (d *device) call(ctx context.Context, address string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: d.trust.Clone()}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: callTimeout}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode > 299 {
		return fmt.Errorf("the control plane answers %s: %s", resp.Status, got)
	}
	return json.Unmarshal(got, answer)
}

// enter opens a carrier and introduces the device, as part 5 of docs/03 says.
func (d *device) enter(ctx context.Context) (*session, error) {
	u, err := url.Parse(d.gateway)
	if err != nil {
		return nil, err
	}
	opts := carrier.DialOptions{TLS: d.trust}
	if d.knock != nil {
		opts.Cookie = knockCookie(d.knock, u.Host)
	}
	conn, err := carrier.Dial(ctx, d.gateway, opts)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	limits, err := d.introduce(conn, strings.ToLower(u.Host))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	return &session{conn, limits}, nil
}

func (d *device) introduce(conn *carrier.Conn, host string) (wire.Limits, error) {
	frame, err := first(conn)
	if err != nil {
		return wire.Limits{}, err
	}
	challenge, err := wire.ParseChallenge(frame.Payload)
	if err != nil {
		return wire.Limits{}, err
	}
	binding, err := conn.ExportKeyingMaterial()
	if err != nil {
		return wire.Limits{}, err
	}
	public, ok := d.key.Public().(ed25519.PublicKey)
	if !ok {
		return wire.Limits{}, errors.New("not an Ed25519 key")
	}
	hello := wire.Hello{
		Capabilities: challenge.Capabilities & wire.KnownCapabilities, DeviceID: d.id, Agent: "bench",
		AccessToken: d.token, Time: time.Now(), DeviceKey: [32]byte(public),
	}
	_, _ = rand.Read(hello.ClientNonce[:]) // never fails (crypto/rand)
	signature, err := d.key.Sign(nil, hello.SigningInput(challenge.Nonce, host, binding), crypto.Hash(0))
	if err != nil {
		return wire.Limits{}, err
	}
	copy(hello.Signature[:], signature)
	if err := conn.WriteMessage(wire.AppendHello(nil, hello)); err != nil {
		return wire.Limits{}, err
	}
	if frame, err = first(conn); err != nil {
		return wire.Limits{}, err
	}
	if frame.Type != wire.TypeReady {
		return wire.Limits{}, fmt.Errorf("the gateway answers %v to HELLO", frame.Type)
	}
	ready, err := wire.ParseReady(frame.Payload)
	return ready.Limits, err
}

// first reads a message and returns its first frame.
func first(conn *carrier.Conn) (wire.Frame, error) {
	message, err := conn.ReadMessage(nil)
	if err != nil {
		return wire.Frame{}, err
	}
	frame, _, err := wire.ConsumeFrame(message)
	return frame, err
}
