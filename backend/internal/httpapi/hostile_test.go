package httpapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

var rawURL = base64.RawURLEncoding

// signingKey returns the key that the service signs access tokens with: what a
// forger has who got hold of nearly everything.
func (f *fixture) signingKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	const kind = "token_signing_key"
	var key ed25519.PrivateKey
	err := f.records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		secrets, err := tx.Secrets(ctx, kind)
		if err != nil {
			return err
		}
		seed, err := f.unseal(secrets[0].Sealed, "secrets|"+kind+"/"+secrets[0].ID+"|sealed")
		key = ed25519.NewKeyFromSeed(seed)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// enrol makes a device of the invited user and returns its id and its key.
func (f *fixture) enrol(t *testing.T) (string, ed25519.PrivateKey) {
	t.Helper()
	seed := sha256.Sum256([]byte("device"))
	key := ed25519.NewKeyFromSeed(seed[:])
	code := f.invite[strings.Index(f.invite, "code=")+len("code="):]
	code, _, _ = strings.Cut(code, ",")
	hash, nonce := sha256.Sum256([]byte(code)), f.authority.Challenge()
	enrolled, err := f.authority.Enroll(t.Context(), control.Enrolment{
		Code: code, PublicKey: public(key), Name: "d", Proof: control.Proof{
			Nonce:     nonce,
			Signature: ed25519.Sign(key, slices.Concat([]byte("HTTVPS1 enrol\x00"), hash[:], public(key), nonce)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return enrolled.Device.ID, key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	p, _ := key.Public().(ed25519.PublicKey)
	return p
}

// forger makes tokens that are nearly good ones: what he changes are members of
// the header and the payload, in their order.
type forger struct {
	key     ed25519.PrivateKey // the right one
	header  members
	payload members
}

// members of a JSON object: names and their values as JSON, in turn.
type members []string

func (m members) String() string {
	parts := make([]string, 0, len(m)/2)
	for i := 0; i+1 < len(m); i += 2 {
		parts = append(parts, fmt.Sprintf("%q:%s", m[i], m[i+1]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// with returns the members with one of them changed, or added.
func (m members) with(name, value string) members {
	changed := slices.Clone(m)
	for i := 0; i+1 < len(m); i += 2 {
		if m[i] == name {
			changed[i+1] = value
			return changed
		}
	}
	return append(changed, name, value)
}

// without returns the members without one of them.
func (m members) without(name string) members {
	for i := 0; i+1 < len(m); i += 2 {
		if m[i] == name {
			return slices.Delete(slices.Clone(m), i, i+2)
		}
	}
	return m
}

func signed(key ed25519.PrivateKey, header, payload string) string {
	text := rawURL.EncodeToString([]byte(header)) + "." + rawURL.EncodeToString([]byte(payload))
	return text + "." + rawURL.EncodeToString(ed25519.Sign(key, []byte(text)))
}

func (f forger) good() string { return signed(f.key, f.header.String(), f.payload.String()) }

func (f forger) head(name, value string) string {
	return signed(f.key, f.header.with(name, value).String(), f.payload.String())
}

func (f forger) claim(name, value string) string {
	return signed(f.key, f.header.String(), f.payload.with(name, value).String())
}

// malleable adds the group's order to the signature's scalar: the same signature
// in the eyes of a verifier that does not look at its range.
func malleable(token string) string {
	text, signature, _ := strings.Cut(token[strings.IndexByte(token, '.')+1:], ".")
	raw, _ := rawURL.DecodeString(signature)
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	scalar := slices.Clone(raw[32:])
	slices.Reverse(scalar)
	sum := new(big.Int).Add(new(big.Int).SetBytes(scalar), order).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	copy(raw[32:], sum)
	return token[:strings.IndexByte(token, '.')+1] + text + "." + rawURL.EncodeToString(raw)
}

// forgeries returns tokens of which none is good, by what is wrong with each.
func (f forger) forgeries(t *testing.T) map[string]string {
	t.Helper()
	good := f.good()
	parts := strings.Split(good, ".")
	head, text := parts[0], parts[1]
	now := time.Now().Unix()
	number := func(n int64) string { return fmt.Sprint(n) }
	stranger := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	unsigned := func(alg string) string {
		return rawURL.EncodeToString([]byte(f.header.with("alg", fmt.Sprintf("%q", alg)).String())) + "." + text + "."
	}
	hs256 := func(secret []byte) string {
		signing := strings.TrimSuffix(unsigned("HS256"), ".")
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signing))
		return signing + "." + rawURL.EncodeToString(mac.Sum(nil))
	}
	es256 := func() string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signing := strings.TrimSuffix(unsigned("ES256"), ".")
		sum := sha256.Sum256([]byte(signing))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return signing + "." + rawURL.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	flipped := []byte(good)
	flipped[len(good)-20] ^= 1
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	respelled := good[:len(good)-1] + string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])^1])
	jwk := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, rawURL.EncodeToString(public(stranger)))
	twice := func(m members, name, first string) string {
		return strings.Replace(m.String(), "{", fmt.Sprintf("{%q:%s,", name, first), 1)
	}

	return map[string]string{
		// the algorithm
		"alg none":                            unsigned("none"),
		"alg None":                            unsigned("None"),
		"alg none with the good signature":    unsigned("none") + parts[2],
		"no alg":                              signed(f.key, f.header.without("alg").String(), f.payload.String()),
		"alg null":                            f.head("alg", "null"),
		"alg as a list":                       f.head("alg", `["EdDSA"]`),
		"HS256 with the public key as secret": hs256(public(f.key)),
		"HS256 with the key's text as secret": hs256([]byte(rawURL.EncodeToString(public(f.key)))),
		"HS256 without a secret":              hs256(nil),
		"ES256 with a stranger's key":         es256(),
		"alg ES256 over an Ed25519 signature": f.head("alg", `"ES256"`),
		"alg RS256":                           f.head("alg", `"RS256"`),
		"alg Ed25519ph":                       f.head("alg", `"Ed25519ph"`),
		"two algs":                            signed(f.key, twice(f.header, "alg", `"none"`), f.payload.String()),
		"alg in capitals beside alg":          f.head("ALG", `"none"`),
		// what else the header says
		"no typ":                                 signed(f.key, f.header.without("typ").String(), f.payload.String()),
		"typ JWT":                                f.head("typ", `"JWT"`),
		"typ of an identity token":               f.head("typ", `"id_token+jwt"`),
		"typ as a number":                        f.head("typ", "1"),
		"a kid of somebody else":                 f.head("kid", `"`+ticket.Thumbprint(public(stranger))+`"`),
		"a kid that is a path":                   f.head("kid", `"../../../../dev/null"`),
		"a kid that is SQL":                      f.head("kid", `"x' UNION SELECT 'AA' -- "`),
		"a kid that is an address":               f.head("kid", `"https://evil.example/key"`),
		"a kid of nothing":                       f.head("kid", `""`),
		"a kid of 1,000 bytes":                   f.head("kid", `"`+strings.Repeat("k", 1000)+`"`),
		"a key of its own":                       signed(stranger, f.header.with("jwk", jwk).String(), f.payload.String()),
		"a key of its own, signed with the good": f.head("jwk", jwk),
		"an address of keys":                     f.head("jku", `"https://evil.example/jwks.json"`),
		"an address of certificates":             f.head("x5u", `"https://evil.example/c.pem"`),
		"certificates":                           f.head("x5c", `["AA"]`),
		"a critical extension":                   f.head("crit", `["exp"]`),
		"an unencoded payload":                   f.head("b64", "false"),
		"a compressed payload":                   f.head("zip", `"DEF"`),
		"a header that is null":                  signed(f.key, "null", f.payload.String()),
		"a header that is no JSON":               signed(f.key, "alg=EdDSA", f.payload.String()),
		"something behind the header":            signed(f.key, f.header.String()+"{}", f.payload.String()),
		// what it claims
		"another issuer":                f.claim("iss", `"urn:httvps:evil"`),
		"no issuer":                     signed(f.key, f.header.String(), f.payload.without("iss").String()),
		"two issuers":                   signed(f.key, f.header.String(), twice(f.payload, "iss", `"urn:httvps:evil"`)),
		"another audience":              f.claim("aud", `"somebody-else"`),
		"a list of audiences":           f.claim("aud", `["somebody-else"]`),
		"no audience":                   signed(f.key, f.header.String(), f.payload.without("aud").String()),
		"a subject that is not there":   signed(f.key, f.header.String(), f.payload.with("sub", `"01890000-0000-7000-8000-000000000000"`).String()),
		"a subject that is SQL":         f.claim("sub", `"' OR 1=1 --"`),
		"a subject with a zero byte":    f.claim("sub", `"a\u0000b"`),
		"two subjects":                  signed(f.key, f.header.String(), twice(f.payload, "sub", `"x"`)),
		"no expiry":                     signed(f.key, f.header.String(), f.payload.without("exp").String()),
		"an expiry in the year 33658":   f.claim("exp", "1000000000000"),
		"an expiry at the end of time":  f.claim("exp", "9223372036854775807"),
		"an expiry beyond 64 bits":      f.claim("exp", "1e400"),
		"a negative expiry":             f.claim("exp", "-1"),
		"an expiry that is text":        f.claim("exp", `"`+number(now+600)+`"`),
		"an expiry with a fraction":     f.claim("exp", number(now+600)+".5"),
		"two expiries":                  signed(f.key, f.header.String(), twice(f.payload, "exp", "1")),
		"no time of issue":              signed(f.key, f.header.String(), f.payload.without("iat").String()),
		"valid from tomorrow":           f.claim("nbf", number(now+86400)),
		"valid from a text":             f.claim("nbf", `"now"`),
		"valid for a week":              signed(f.key, f.header.String(), f.payload.with("iat", number(now)).with("exp", number(now+7*86400)).String()),
		"a payload that is a list":      signed(f.key, f.header.String(), "["+f.payload.String()+"]"),
		"a payload that is null":        signed(f.key, f.header.String(), "null"),
		"a payload that is not UTF-8":   signed(f.key, f.header.String(), f.payload.with("jti", "\"\xff\"").String()),
		"a payload nested 100,000 deep": signed(f.key, f.header.String(), f.payload.with("x", strings.Repeat("[", 100000)).String()),
		// how it is signed and written
		"a stranger's signature":              signed(stranger, f.header.String(), f.payload.String()),
		"no signature":                        head + "." + text + ".",
		"half a signature":                    head + "." + text + "." + parts[2][:43],
		"a flipped bit in the signature":      string(flipped),
		"a signature with the order added":    malleable(good),
		"a signature of zeros":                head + "." + text + "." + rawURL.EncodeToString(make([]byte, ed25519.SignatureSize)),
		"another spelling of the signature":   respelled,
		"padding":                             good + "==",
		"the other alphabet of base64":        strings.NewReplacer("-", "+", "_", "/").Replace(good) + "=",
		"another payload under the signature": head + "." + rawURL.EncodeToString([]byte(f.payload.with("jti", `"evil"`).String())) + "." + parts[2],
		"the first part only":                 head,
		"two parts":                           head + "." + text,
		"four parts":                          good + "." + parts[2],
		"five parts, as if encrypted":         good + ".." + parts[2],
		"three empty parts":                   "..",
		"cut in the payload":                  good[:len(head)+len(text)/2],
		"a space inside":                      head + ". " + text + "." + parts[2],
		"a space behind":                      good + " ",
		"a tab in front":                      "\t" + good,
		"a line break inside":                 head + "\n." + text + "." + parts[2],
		"two tokens with a comma":             good + "," + good,
		"two tokens with a space":             good + " " + good,
		"1 MB of a token":                     good + strings.Repeat("A", 1<<20),
		"1 MB of dots":                        strings.Repeat(".", 1<<20),
		"nothing":                             "",
	}
}

// secured is an operation that asks for a credential.
type secured struct {
	operation
	id, scheme string
}

// securedOperations returns all of them, as the document has them.
func securedOperations(t *testing.T) []secured {
	t.Helper()
	document, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(document, &api); err != nil {
		t.Fatal(err)
	}
	var all []secured
	for path, methods := range api.Paths {
		for method, op := range methods {
			for _, alternative := range op.Security {
				for scheme := range alternative {
					all = append(all, secured{operation{method: strings.ToUpper(method), path: path}, op.OperationID, scheme})
				}
			}
		}
	}
	return all
}

func TestForgedCredentialsGetOneAndTheSameAnswerOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testForgeries(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testForgeries(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

func testForgeries(t *testing.T, f *fixture) {
	t.Helper()
	device, deviceKey := f.enrol(t)
	service, now := f.signingKey(t), time.Now().Unix()
	quoted := func(s string) string { return fmt.Sprintf("%q", s) }
	access := forger{
		key:    service,
		header: members{"alg", `"EdDSA"`, "typ", `"at+jwt"`, "kid", quoted(ticket.Thumbprint(public(service)))},
		payload: members{
			"iss", quoted(f.authority.Identity().Issuer), "aud", quoted(f.authority.Identity().ServiceID), "jti", `"j"`, "sub", quoted(device),
			"gen", "1", "iat", fmt.Sprint(now), "exp", fmt.Sprint(now + 600), "cnf", `{"jkt":` + quoted(ticket.Thumbprint(public(deviceKey))) + `}`,
		},
	}
	assertion := forger{
		key:    f.gatewayKey,
		header: members{"alg", `"EdDSA"`, "typ", `"gw+jwt"`},
		payload: members{
			"iss", quoted(f.gatewayID), "sub", quoted(f.gatewayID), "aud", `"httvps-control"`, "iat", fmt.Sprint(now), "exp", fmt.Sprint(now + 600),
		},
	}
	forged := map[string]map[string]string{
		"device":   access.forgeries(t),
		"gateway":  assertion.forgeries(t),
		"operator": forgedAPITokens(f.token),
	}
	good := map[string]string{"device": access.good(), "gateway": assertion.good(), "operator": f.token}
	forged["device"]["a generation that is over"] = access.claim("gen", "2")
	forged["device"]["another key confirmed"] = access.claim("cnf", `{"jkt":`+quoted(ticket.Thumbprint(public(f.gatewayKey)))+`}`)
	forged["gateway"]["a kid"] = assertion.head("kid", quoted(ticket.Thumbprint(public(f.gatewayKey))))
	forged["gateway"]["of yesterday"] = signed(f.gatewayKey, assertion.header.String(),
		assertion.payload.with("iat", fmt.Sprint(now-90000)).with("exp", fmt.Sprint(now-89000)).String())
	for scheme, credential := range good { // one kind is no other
		for other := range good {
			if other != scheme {
				forged[other]["what "+scheme+"s have"] = credential
			}
		}
	}
	for scheme, tokens := range forged {
		least := 60
		if scheme == "operator" {
			least = 20
		}
		if len(tokens) < least {
			t.Errorf("only %d forgeries for a %s", len(tokens), scheme)
		}
	}

	seen := make(map[string]bool)
	for _, op := range securedOperations(t) {
		seen[op.scheme] = true
		path := strings.NewReplacer("{id}", strings.Repeat("0", 36), "{invitation_id}", strings.Repeat("0", 36)).Replace(op.path)
		ask := func(authorization ...string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), op.method, f.prefix+path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			if authorization != nil {
				r.Header["Authorization"] = authorization
			}
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, r)
			return w
		}
		if w := ask("Bearer " + good[op.scheme]); w.Code == http.StatusUnauthorized {
			t.Errorf("%s with a good credential: %d %s", op.id, w.Code, w.Body)
		}
		want := ask()
		if want.Code != http.StatusUnauthorized || !strings.Contains(want.Body.String(), `"invalid_token"`) {
			t.Fatalf("%s without a credential: %d %s", op.id, want.Code, want.Body)
		}
		same := func(name string, authorization ...string) {
			w := ask(authorization...)
			if w.Header().Get("X-Request-Id") == want.Header().Get("X-Request-Id") {
				t.Errorf("two requests have the same id")
			}
			w.Header().Set("X-Request-Id", want.Header().Get("X-Request-Id"))
			if w.Code != want.Code || w.Body.String() != want.Body.String() || fmt.Sprint(w.Header()) != fmt.Sprint(want.Header()) {
				t.Errorf("%s, %s: %d %v %s, want what nothing gets: %d %v %s", op.id, name, w.Code, w.Header(), w.Body, want.Code, want.Header(), want.Body)
			}
		}
		for name, token := range forged[op.scheme] {
			same(name, "Bearer "+token)
		}
		same("no scheme", good[op.scheme])
		same("another scheme", "Basic "+good[op.scheme])
		same("a scheme and nothing", "Bearer")
		same("two spaces", "Bearer  "+good[op.scheme])
		same("two headers", "Bearer "+good[op.scheme], "Bearer "+good[op.scheme])
		same("two headers, the first of them empty", "", "Bearer "+good[op.scheme])
	}
	if len(seen) != len(good) {
		t.Errorf("operations ask for %v", seen)
	}
	for scheme, credential := range good {
		if strings.Contains(f.log.String(), credential) {
			t.Errorf("the log has a %s's credential", scheme)
		}
	}
}

// forgedAPITokens returns tokens that are nearly an operator's.
func forgedAPITokens(good string) map[string]string {
	secret := strings.TrimPrefix(good, "hvt1.")
	secret, pin, pinned := strings.Cut(secret, ".")
	flipped := []byte("hvt1." + secret)
	flipped[20] ^= 1
	swapped := strings.ToUpper(secret)
	if swapped == secret {
		swapped = strings.ToLower(secret)
	}
	hash := sha256.Sum256([]byte("hvt1." + secret))
	tokens := map[string]string{
		"nothing":                   "",
		"the version only":          "hvt1.",
		"the secret only":           secret,
		"another version":           "hvt2." + secret,
		"the version in capitals":   "HVT1." + secret,
		"a flipped bit":             string(flipped),
		"cut":                       "hvt1." + secret[:len(secret)-1],
		"one character more":        "hvt1." + secret + "A",
		"letters of the other case": "hvt1." + swapped,
		"padding":                   "hvt1." + secret + "=",
		"the stored hash":           "hvt1." + rawURL.EncodeToString(hash[:]),
		"zeros":                     "hvt1." + strings.Repeat("A", len(secret)),
		"a short pin":               "hvt1." + secret + ".A",
		"a pin after a colon":       "hvt1." + secret + ":" + strings.Repeat("A", 43),
		"two pins":                  "hvt1." + secret + "." + strings.Repeat("A", 43) + "." + strings.Repeat("A", 43),
		"a space in front":          " hvt1." + secret,
		"a space behind":            "hvt1." + secret + " ",
		"two tokens":                "hvt1." + secret + ",hvt1." + secret,
		"SQL":                       "hvt1.' OR '1'='1" + strings.Repeat("A", len(secret)-11),
		"a zero byte":               "hvt1." + secret[:10] + "\x00" + secret[11:],
		"not UTF-8":                 "hvt1." + secret[:10] + "\xff" + secret[11:],
		"1 MB":                      "hvt1." + strings.Repeat(secret, 24000),
	}
	if pinned {
		tokens["the pin as secret"] = "hvt1." + pin
	}
	return tokens
}
