package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

var (
	problemType = reflect.TypeFor[Problem]()
	rawURL      = base64.RawURLEncoding.Strict()
)

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types marshal
	}
	return data
}

// decode64 reads base64url that a pattern has let through. What it does not
// accept, a signature check behind it refuses as well.
func decode64(s string) []byte {
	data, err := rawURL.DecodeString(s)
	if err != nil {
		return nil
	}
	return data
}

// Remote is the address of a request's client.
type Remote struct {
	address string
}

// Resolve implements huma.Resolver.
func (r *Remote) Resolve(ctx huma.Context) []error {
	r.address = ctx.RemoteAddr()
	return nil
}

// Challenge is a nonce to be signed.
type Challenge struct {
	Nonce     string `json:"nonce" doc:"Base64url."`
	ExpiresIn int    `json:"expires_in" doc:"Seconds."`
}

// Enrol is a device's request to be let in.
type Enrol struct {
	Code      string `json:"code" minLength:"26" maxLength:"26" pattern:"^[A-Za-z2-7]*$" doc:"The invitation's code."`
	PublicKey string `json:"public_key" minLength:"43" maxLength:"43" pattern:"^[A-Za-z0-9_-]*$" doc:"Ed25519, base64url."`
	Nonce     string `json:"nonce" minLength:"1" maxLength:"128" pattern:"^[A-Za-z0-9_-]*$" doc:"From a challenge."`
	Signature string `json:"signature" minLength:"86" maxLength:"86" pattern:"^[A-Za-z0-9_-]*$" doc:"Ed25519 over \"HTTVPS1 enrol\", a zero byte, SHA-256 of the code in upper case, the public key and the nonce; base64url."`
	Name      string `json:"name" minLength:"1" maxLength:"100" doc:"What the person calls the device."`
	Platform  string `json:"platform,omitempty" maxLength:"64" doc:"Such as linux/amd64."`
	Replace   string `json:"replace,omitempty" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"The id of a device of the same user, from the refusal device_limit: it is revoked, and this one takes its place."`
}

// Enrolled is what a device needs to know about itself and the service.
type Enrolled struct {
	DeviceID    string   `json:"device_id" doc:"A UUID."`
	Name        string   `json:"name"`
	UserName    string   `json:"user_name"`
	ServiceID   string   `json:"service_id" doc:"A UUID: the audience of access tokens."`
	ServiceName string   `json:"service_name"`
	API         []string `json:"api" doc:"Base addresses of the API, to be tried in order."`
	Knock       Knock    `json:"knock"`
}

// Knock is how a device makes itself known to gateways, the same for all of them.
type Knock struct {
	Cookie string `json:"cookie" doc:"The cookie's name."`
	Key    string `json:"key" doc:"32 bytes, base64url."`
}

func deviceKnock(k control.Knock) Knock {
	return Knock{Cookie: k.Cookie, Key: rawURL.EncodeToString(k.Key[:])}
}

// TokenRequest is a device's proof of its key.
type TokenRequest struct {
	DeviceID  string `json:"device_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	Nonce     string `json:"nonce" minLength:"1" maxLength:"128" pattern:"^[A-Za-z0-9_-]*$" doc:"From a challenge."`
	Signature string `json:"signature" minLength:"86" maxLength:"86" pattern:"^[A-Za-z0-9_-]*$" doc:"Ed25519 over \"HTTVPS1 token\", a zero byte, the 16 bytes of the device id and the nonce; base64url."`
}

// AccessToken is what lets a device open sessions for a while.
type AccessToken struct {
	AccessToken string             `json:"access_token"`
	TokenType   string             `json:"token_type" enum:"Bearer"`
	ExpiresIn   int                `json:"expires_in" doc:"Seconds."`
	Gateways    []ReachableGateway `json:"gateways" doc:"To be tried in order."`
	Knock       Knock              `json:"knock"`
}

// ReachableGateway is where a device can open a session now.
type ReachableGateway struct {
	ID     string `json:"id"`
	Region string `json:"region" doc:"A region's code."`
	URL    string `json:"url" doc:"wss"`
}

type body[T any] struct {
	Body T
}

// emptyInput has a body that may be absent or an empty object.
type emptyInput struct {
	Body *struct{}
}

type answer[T any] struct {
	Status int
	Body   T
}

// KeySet is a JSON Web Key Set of Ed25519 keys.
type KeySet struct {
	Keys []JSONWebKey `json:"keys"`
}

// JSONWebKey is a key that verifies access tokens.
type JSONWebKey struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

func (s *server) keySet(ctx context.Context) (KeySet, error) {
	set := KeySet{Keys: []JSONWebKey{}}
	known, err := s.authority.JWKS(ctx)
	for _, key := range known.Keys {
		set.Keys = append(set.Keys, JSONWebKey{
			KeyType: "OKP", Curve: "Ed25519", X: rawURL.EncodeToString(key.Public), KeyID: key.ID, Algorithm: "EdDSA", Use: "sig",
		})
	}
	return set, err
}

func reachable(gateways []control.Gateway) []ReachableGateway {
	list := make([]ReachableGateway, 0, len(gateways))
	for _, g := range gateways {
		list = append(list, ReachableGateway{ID: g.ID, Region: g.Region, URL: g.URL})
	}
	return list
}

func (s *server) registerDevice(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "challenge", Method: http.MethodPost, Path: "/api/v1/auth/challenge", Tags: []string{"device", "gateway"},
		Summary: "Get a nonce to sign", DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, _ *emptyInput) (*body[Challenge], error) {
		stay(ctx) // the proof follows
		return &body[Challenge]{Challenge{
			Nonce: rawURL.EncodeToString(s.authority.Challenge()), ExpiresIn: int(control.NonceTTL.Seconds()),
		}}, nil
	})
	register(s, api, huma.Operation{
		OperationID: "enroll", Method: http.MethodPost, Path: "/api/v1/devices/enroll", Tags: []string{"device"},
		Summary: "Redeem an invitation for a device's key", DefaultStatus: http.StatusCreated,
		Description: "The same code with the same key again gives the same device, with status 200. The refusal device_limit has the user's devices, " +
			"of which the request may name one to replace.",
	}, s.enroll)
	register(s, api, huma.Operation{
		OperationID: "token", Method: http.MethodPost, Path: "/api/v1/auth/token", Tags: []string{"device"},
		Summary: "Get an access token for a proof of the device's key", DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, in *body[TokenRequest]) (*body[AccessToken], error) {
		proof := control.Proof{Nonce: decode64(in.Body.Nonce), Signature: decode64(in.Body.Signature)}
		issued, err := s.authority.IssueToken(ctx, in.Body.DeviceID, proof)
		if err != nil {
			return nil, err
		}
		return &body[AccessToken]{AccessToken{
			AccessToken: issued.AccessToken, TokenType: "Bearer", ExpiresIn: int(issued.ExpiresIn.Seconds()),
			Gateways: reachable(issued.Gateways), Knock: deviceKnock(issued.Knock),
		}}, nil
	})

	type gateways struct {
		Gateways []ReachableGateway `json:"gateways" doc:"To be tried in order."`
	}
	register(s, api, huma.Operation{
		OperationID: "list-reachable-gateways", Method: http.MethodGet, Path: "/api/v1/gateways", Tags: []string{"device"},
		Summary: "List the gateways that are up and may be used, in the order to try them", Security: []map[string][]string{{secureDevice: {}}},
		Middlewares: s.asDevice(),
	}, func(ctx context.Context, in *struct {
		Region string `query:"region" maxLength:"32" pattern:"^[a-z0-9-]*$" doc:"Only those in the region with this code."`
	},
	) (*body[gateways], error) {
		list, err := s.authority.GatewaysFor(ctx, deviceOf(ctx), in.Region)
		return &body[gateways]{gateways{Gateways: reachable(list)}}, err
	})
	register(s, api, huma.Operation{
		OperationID: "jwks", Method: http.MethodGet, Path: "/.well-known/jwks.json", Tags: []string{"device", "gateway"},
		Summary: "Get the keys that verify access tokens",
	}, func(ctx context.Context, _ *struct{}) (*body[KeySet], error) {
		keys, err := s.keySet(ctx)
		return &body[KeySet]{keys}, err
	})
}

type enrolInput struct {
	Remote
	Body Enrol
}

func (s *server) enroll(ctx context.Context, in *enrolInput) (*answer[Enrolled], error) {
	var enrolled control.Enrolled
	err := s.limited(in.address, func() (err error) {
		enrolled, err = s.authority.Enroll(ctx, control.Enrolment{
			Code: in.Body.Code, PublicKey: decode64(in.Body.PublicKey), Name: in.Body.Name, Platform: in.Body.Platform,
			Replace: in.Body.Replace,
			Proof:   control.Proof{Nonce: decode64(in.Body.Nonce), Signature: decode64(in.Body.Signature)},
		})
		return err
	})
	if err != nil {
		s.observer.Enrolment(problemOf(err).Code)
		return nil, err
	}
	out := &answer[Enrolled]{Status: http.StatusOK, Body: Enrolled{
		DeviceID: enrolled.Device.ID, Name: enrolled.Device.Name, UserName: enrolled.UserName,
		ServiceID: s.authority.Identity().ServiceID, ServiceName: s.authority.ServiceName(), API: []string{s.authority.APIBase()},
		Knock: deviceKnock(enrolled.Knock),
	}}
	if enrolled.New {
		out.Status = http.StatusCreated
		s.log.InfoContext(ctx, "device enrolled", "device_id", enrolled.Device.ID, "user_id", enrolled.Device.UserID)
		if enrolled.Replaced != "" {
			s.log.InfoContext(ctx, "device replaced", "device_id", enrolled.Replaced, "by_device_id", enrolled.Device.ID)
		}
		s.observer.Enrolment("enrolled")
	} else {
		s.observer.Enrolment("repeated")
	}
	return out, nil
}

// limited runs an attempt to redeem a code, unless too many from the same
// address have been refused. Only refusals count.
func (s *server) limited(address string, attempt func() error) (err error) {
	done, err := s.attempts.begin(address)
	if err != nil {
		return err
	}
	defer func() { done(isRefusal(err)) }() // also after a panic
	return attempt()
}

func isRefusal(err error) bool {
	return errors.Is(err, control.ErrInvalidInvitation) || errors.Is(err, control.ErrInvalidProof) || errors.Is(err, control.ErrBadLogin)
}
