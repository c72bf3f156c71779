package ticket

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	issuer  = "urn:httvps:test"
	service = "0192d1a0-0000-7000-8000-000000000001"
	device  = "0192d1a0-0000-7000-8000-000000000002"
	gateway = "0192d1a0-0000-7000-8000-000000000003"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testKey returns the same key for the same number in every run.
func testKey(n byte) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{n})
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	return key.Public().(ed25519.PublicKey)
}

func goodClaims() Claims {
	return Claims{
		ID: "0192d1a0-0000-7000-8000-00000000000a", Device: device, Generation: 3,
		KeyThumbprint: Thumbprint(public(testKey(9))),
		IssuedAt:      start, ExpiresAt: start.Add(time.Hour),
	}
}

// forge signs header and payload, given as JSON text, with key.
func forge(key ed25519.PrivateKey, header, payload string) string {
	signed := rawURL.EncodeToString([]byte(header)) + "." + rawURL.EncodeToString([]byte(payload))
	return signed + "." + rawURL.EncodeToString(ed25519.Sign(key, []byte(signed)))
}

func accessHeader() string {
	return fmt.Sprintf(`{"alg":"EdDSA","typ":"at+jwt","kid":%q}`, Thumbprint(public(testKey(1))))
}

func accessPayload() string {
	return fmt.Sprintf(`{"iss":%q,"aud":%q,"jti":"j","sub":%q,"gen":3,"iat":%d,"exp":%d,"cnf":{"jkt":%q}}`,
		issuer, service, device, start.Unix(), start.Add(time.Hour).Unix(), Thumbprint(public(testKey(9))))
}

func testVerifier() *Verifier {
	return NewVerifier(issuer, service, NewJWKS(public(testKey(1)), public(testKey(2))))
}

func TestAnAccessTokenSaysWhatWasSigned(t *testing.T) {
	token, err := NewSigner(testKey(2), issuer, service).Sign(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	got, err := testVerifier().Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goodClaims(), got); diff != "" {
		t.Errorf("claims changed on the way (-signed +verified):\n%s", diff)
	}
}

func TestTheForgersToolsMakeAGoodTokenWhenNothingIsChanged(t *testing.T) {
	if _, err := testVerifier().Verify(forge(testKey(1), accessHeader(), accessPayload())); err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(accessPayload(), `"jti"`, `"limits":{"a":[1,{"b":null}]},"jti"`, 1)
	if _, err := testVerifier().Verify(forge(testKey(1), accessHeader(), with)); err != nil {
		t.Errorf("a claim from the future is refused: %v", err)
	}
}

func TestForgedAndOddAccessTokensAreRefused(t *testing.T) {
	good := forge(testKey(1), accessHeader(), accessPayload())
	parts := strings.Split(good, ".")
	kid := Thumbprint(public(testKey(1)))
	jkt := Thumbprint(public(testKey(9)))

	header := func(text string) string { return forge(testKey(1), text, accessPayload()) }
	replaced := func(old, new string) string {
		payload := strings.Replace(accessPayload(), old, new, 1)
		if payload == accessPayload() {
			t.Fatalf("%q is not in the payload", old)
		}
		return forge(testKey(1), accessHeader(), payload)
	}
	hs256 := func(secret []byte) string {
		h := rawURL.EncodeToString(fmt.Appendf(nil, `{"alg":"HS256","typ":"at+jwt","kid":%q}`, kid))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(h + "." + parts[1]))
		return h + "." + parts[1] + "." + rawURL.EncodeToString(mac.Sum(nil))
	}
	iat := fmt.Sprintf(`"iat":%d`, start.Unix())
	exp := fmt.Sprintf(`"exp":%d`, start.Add(time.Hour).Unix())
	assertion, err := SignAssertion(testKey(1), gateway, start)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(good)
	flipped[len(flipped)-10] ^= 1

	tokens := map[string]string{
		"nothing":                                 "",
		"one dot":                                 ".",
		"two dots":                                "..",
		"one part":                                parts[0],
		"two parts":                               parts[0] + "." + parts[1],
		"four parts":                              good + ".x",
		"an encrypted token's five parts":         good + ".a.b",
		"a trailing dot":                          good + ".",
		"no signature":                            parts[0] + "." + parts[1] + ".",
		"half a signature":                        parts[0] + "." + parts[1] + "." + parts[2][:43],
		"a flipped signature bit":                 string(flipped),
		"a longer signature":                      good + "AAAA",
		"standard base64 alphabet":                strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
		"padding":                                 good + "==",
		"a space in front":                        " " + good,
		"a line break behind":                     good + "\n",
		"a line break inside":                     parts[0] + ".\n" + parts[1] + "." + parts[2],
		"a carriage return in the signature":      parts[0] + "." + parts[1] + ".\r" + parts[2],
		"another spelling of the signature":       respell(good),
		"the word Bearer":                         "Bearer " + good,
		"a header that is no JSON":                header(`alg`),
		"an empty header":                         header(``),
		"a header that is an array":               header(`["EdDSA"]`),
		"a header that is null":                   header(`null`),
		"something behind the header":             header(accessHeader() + `{}`),
		"an unfinished header":                    header(`{"alg":"EdDSA","typ":"at+jwt"`),
		"a header that is not UTF-8":              header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + "\xff" + `"}`),
		"alg none":                                rawURL.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + parts[1] + ".",
		"alg NONE with the old signature":         rawURL.EncodeToString([]byte(`{"alg":"NONE","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + parts[1] + "." + parts[2],
		"alg in another case":                     header(`{"alg":"eddsa","typ":"at+jwt","kid":"` + kid + `"}`),
		"alg Ed25519":                             header(`{"alg":"Ed25519","typ":"at+jwt","kid":"` + kid + `"}`),
		"alg RS256":                               header(`{"alg":"RS256","typ":"at+jwt","kid":"` + kid + `"}`),
		"no alg":                                  header(`{"typ":"at+jwt","kid":"` + kid + `"}`),
		"alg null":                                header(`{"alg":null,"typ":"at+jwt","kid":"` + kid + `"}`),
		"alg as a list":                           header(`{"alg":["EdDSA"],"typ":"at+jwt","kid":"` + kid + `"}`),
		"two algs":                                header(`{"alg":"none","alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `"}`),
		"HMAC with the public key as the secret":  hs256(public(testKey(1))),
		"HMAC with the key id as the secret":      hs256([]byte(kid)),
		"HMAC with an empty secret":               hs256(nil),
		"no typ":                                  header(`{"alg":"EdDSA","kid":"` + kid + `"}`),
		"typ JWT":                                 header(`{"alg":"EdDSA","typ":"JWT","kid":"` + kid + `"}`),
		"typ with the media type's prefix":        header(`{"alg":"EdDSA","typ":"application/at+jwt","kid":"` + kid + `"}`),
		"typ of a gateway assertion":              header(`{"alg":"EdDSA","typ":"gw+jwt","kid":"` + kid + `"}`),
		"a gateway assertion":                     assertion,
		"no kid":                                  header(`{"alg":"EdDSA","typ":"at+jwt"}`),
		"an empty kid":                            header(`{"alg":"EdDSA","typ":"at+jwt","kid":""}`),
		"a kid that is a number":                  header(`{"alg":"EdDSA","typ":"at+jwt","kid":1}`),
		"a kid that is a path":                    header(`{"alg":"EdDSA","typ":"at+jwt","kid":"../../dev/null"}`),
		"a kid of 300 bytes":                      header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + strings.Repeat("k", 300) + `"}`),
		"two kids":                                header(`{"alg":"EdDSA","typ":"at+jwt","kid":"x","kid":"` + kid + `"}`),
		"the kid of another key":                  header(fmt.Sprintf(`{"alg":"EdDSA","typ":"at+jwt","kid":%q}`, Thumbprint(public(testKey(2))))),
		"a stranger's key and kid":                forge(testKey(7), fmt.Sprintf(`{"alg":"EdDSA","typ":"at+jwt","kid":%q}`, Thumbprint(public(testKey(7)))), accessPayload()),
		"a stranger's key under our kid":          forge(testKey(7), accessHeader(), accessPayload()),
		"a key in the header":                     forge(testKey(7), `{"alg":"EdDSA","typ":"at+jwt","kid":"`+kid+`","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+rawURL.EncodeToString(public(testKey(7)))+`"}}`, accessPayload()),
		"our own key in the header":               header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","jwk":{}}`),
		"an address of keys":                      header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","jku":"https://example.com/jwks.json"}`),
		"an address of certificates":              header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","x5u":"https://example.com/c.pem"}`),
		"certificates":                            header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","x5c":[]}`),
		"a certificate's hash":                    header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","x5t#S256":"a"}`),
		"a critical extension":                    header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","crit":["b64"],"b64":false}`),
		"an unencoded payload":                    header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","b64":false}`),
		"a compressed payload":                    header(`{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `","zip":"DEF"}`),
		"Alg beside alg":                          header(`{"alg":"EdDSA","Alg":"none","typ":"at+jwt","kid":"` + kid + `"}`),
		"a payload that is no JSON":               forge(testKey(1), accessHeader(), `hello`),
		"an empty payload":                        forge(testKey(1), accessHeader(), ``),
		"a payload that is null":                  forge(testKey(1), accessHeader(), `null`),
		"a payload that is an array":              forge(testKey(1), accessHeader(), `[`+accessPayload()+`]`),
		"a payload that is not UTF-8":             replaced(`"jti":"j"`, `"jti":"`+"\xc3\x28"+`"`),
		"something behind the payload":            forge(testKey(1), accessHeader(), accessPayload()+"x"),
		"two payloads":                            forge(testKey(1), accessHeader(), accessPayload()+accessPayload()),
		"a foreign issuer":                        replaced(issuer, "urn:httvps:other"),
		"no issuer":                               replaced(`"iss":"`+issuer+`",`, ``),
		"an issuer that is null":                  replaced(`"iss":"`+issuer+`"`, `"iss":null`),
		"two issuers":                             replaced(`"iss"`, `"iss":"urn:httvps:other","iss"`),
		"two issuers, one in capitals":            replaced(`"iss":"`+issuer+`"`, `"ISS":"`+issuer+`","iss":"urn:httvps:other"`),
		"an issuer under a capital name only":     replaced(`"iss"`, `"Iss"`),
		"another service's token":                 replaced(service, device),
		"no audience":                             replaced(`"aud":"`+service+`",`, ``),
		"a list of audiences":                     replaced(`"aud":"`+service+`"`, `"aud":["`+service+`"]`),
		"no token id":                             replaced(`"jti":"j",`, ``),
		"an empty token id":                       replaced(`"jti":"j"`, `"jti":""`),
		"no subject":                              replaced(`"sub":"`+device+`",`, ``),
		"an empty subject":                        replaced(`"sub":"`+device+`"`, `"sub":""`),
		"a subject that is a number":              replaced(`"sub":"`+device+`"`, `"sub":7`),
		"a subject of 300 bytes":                  replaced(device, strings.Repeat("d", 300)),
		"two subjects":                            replaced(`"sub"`, `"sub":"x","sub"`),
		"two subjects, one escaped":               replaced(`"sub"`, `"\u0073ub":"x","sub"`),
		"no generation":                           replaced(`"gen":3,`, ``),
		"generation 0":                            replaced(`"gen":3`, `"gen":0`),
		"a negative generation":                   replaced(`"gen":3`, `"gen":-1`),
		"a generation beyond 64 bits":             replaced(`"gen":3`, `"gen":18446744073709551619`),
		"a generation with a fraction":            replaced(`"gen":3`, `"gen":3.0`),
		"a generation that is text":               replaced(`"gen":3`, `"gen":"3"`),
		"no issue time":                           replaced(iat+",", ``),
		"an issue time that is text":              replaced(iat, fmt.Sprintf(`"iat":"%d"`, start.Unix())),
		"an issue time of zero":                   replaced(iat, `"iat":0`),
		"no expiry":                               replaced(exp+",", ``),
		"an expiry that is null":                  replaced(exp, `"exp":null`),
		"an expiry in exponents":                  replaced(exp, `"exp":1e11`),
		"an expiry in a million years":            replaced(exp, `"exp":31556952000000`),
		"an expiry at the end of time":            replaced(exp, `"exp":9223372036854775807`),
		"an expiry before the issue":              replaced(exp, fmt.Sprintf(`"exp":%d`, start.Unix()-1)),
		"an expiry at the issue":                  replaced(exp, fmt.Sprintf(`"exp":%d`, start.Unix())),
		"valid for a day and a second":            replaced(exp, fmt.Sprintf(`"exp":%d`, start.Unix()+86401)),
		"two expiries":                            replaced(`"exp"`, `"exp":1,"exp"`),
		"valid from a second after the issue":     replaced(exp, exp+fmt.Sprintf(`,"nbf":%d`, start.Unix()+1)),
		"valid from a text":                       replaced(exp, exp+`,"nbf":"1"`),
		"no confirmation":                         replaced(`,"cnf":{"jkt":"`+jkt+`"}`, ``),
		"a confirmation that is null":             replaced(`{"jkt":"`+jkt+`"}`, `null`),
		"a confirmation that is text":             replaced(`{"jkt":"`+jkt+`"}`, `"`+jkt+`"`),
		"an empty confirmation":                   replaced(`{"jkt":"`+jkt+`"}`, `{}`),
		"a confirmation of another kind":          replaced(`"jkt"`, `"x5t#S256"`),
		"two confirmations":                       replaced(`"cnf"`, `"cnf":{},"cnf"`),
		"two thumbprints":                         replaced(`"jkt"`, `"jkt":"x","jkt"`),
		"a short thumbprint":                      replaced(jkt, jkt[:42]),
		"a long thumbprint":                       replaced(jkt, jkt+"AA"),
		"a thumbprint in hexadecimal":             replaced(jkt, strings.Repeat("ab", 32)),
		"a thumbprint with stray bits":            replaced(jkt, strings.Repeat("A", 42)+"B"),
		"a token longer than 4,096 bytes":         replaced(`"jti"`, `"pad":"`+strings.Repeat("p", 4000)+`","jti"`),
		"a million nested arrays, cut by the cap": replaced(`"jti"`, `"pad":`+strings.Repeat("[", 1<<20)+`,"jti"`),
	}
	if len(tokens) < 60 {
		t.Fatalf("only %d tokens", len(tokens))
	}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			claims, err := testVerifier().Verify(token)
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("Verify = %v, want ErrInvalid", err)
			}
			if claims != (Claims{}) {
				t.Errorf("Verify returned claims beside its refusal: %+v", claims)
			}
		})
	}
}

// respell changes bits of the last character that decode to nothing.
func respell(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last^1])
}

func TestAKeyOutsideTheSetIsToldApart(t *testing.T) {
	stranger, err := NewSigner(testKey(7), issuer, service).Sign(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testVerifier().Verify(stranger); !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrInvalid) {
		t.Errorf("Verify = %v, want ErrUnknownKey and ErrInvalid", err)
	}
	underOurID := forge(testKey(7), accessHeader(), accessPayload())
	if _, err := testVerifier().Verify(underOurID); errors.Is(err, ErrUnknownKey) {
		t.Errorf("Verify = %v: fetching the key set again would not help", err)
	}
}

func TestExpiryIsLeftToTheCaller(t *testing.T) {
	claims := goodClaims()
	for name, tc := range map[string]struct {
		at   time.Time
		want bool
	}{
		"before it was issued":     {at: start.Add(-time.Hour)},
		"at expiry":                {at: claims.ExpiresAt},
		"at the end of leeway":     {at: claims.ExpiresAt.Add(Leeway)},
		"a moment behind leeway":   {at: claims.ExpiresAt.Add(Leeway + 1), want: true},
		"a year behind its expiry": {at: claims.ExpiresAt.AddDate(1, 0, 0), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := claims.Expired(tc.at); got != tc.want {
				t.Errorf("Expired = %v, want %v", got, tc.want)
			}
		})
	}
	token, err := NewSigner(testKey(1), issuer, service).Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testVerifier().Verify(token); err != nil {
		t.Errorf("Verify refuses a token by its age: %v", err)
	}
}

func TestSignRefusesWhatVerifyWouldRefuse(t *testing.T) {
	for name, spoil := range map[string]func(*Claims){
		"no id":            func(c *Claims) { c.ID = "" },
		"no device":        func(c *Claims) { c.Device = "" },
		"a long device":    func(c *Claims) { c.Device = strings.Repeat("d", 257) },
		"no generation":    func(c *Claims) { c.Generation = 0 },
		"no thumbprint":    func(c *Claims) { c.KeyThumbprint = "" },
		"no times":         func(c *Claims) { c.IssuedAt, c.ExpiresAt = time.Time{}, time.Time{} },
		"valid for 2 days": func(c *Claims) { c.ExpiresAt = start.Add(48 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			claims := goodClaims()
			spoil(&claims)
			if token, err := NewSigner(testKey(1), issuer, service).Sign(claims); err == nil {
				t.Errorf("Sign = %q, want an error", token)
			}
		})
	}
}

func TestAGatewayAssertionNamesItsSigner(t *testing.T) {
	token, err := SignAssertion(testKey(5), gateway, start)
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(id string) (ed25519.PublicKey, error) {
		if id != gateway {
			t.Errorf("looked up %q", id)
		}
		return public(testKey(5)), nil
	}
	for name, at := range map[string]time.Time{
		"at once":                              start,
		"at its end":                           start.Add(AssertionLifetime),
		"by a control plane that is behind":    start.Add(-AssertionLeeway),
		"by a control plane that is far ahead": start.Add(AssertionLifetime + AssertionLeeway),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := VerifyAssertion(token, at, lookup)
			if err != nil || got != gateway {
				t.Errorf("VerifyAssertion = %q, %v, want %q", got, err, gateway)
			}
		})
	}
}

func TestForgedAndOddAssertionsAreRefused(t *testing.T) {
	const header = `{"alg":"EdDSA","typ":"gw+jwt"}`
	payload := fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":"httvps-control","iat":%d,"exp":%d}`,
		gateway, gateway, start.Unix(), start.Add(AssertionLifetime).Unix())
	replaced := func(old, new string) string {
		changed := strings.Replace(payload, old, new, 1)
		if changed == payload {
			t.Fatalf("%q is not in the payload", old)
		}
		return forge(testKey(5), header, changed)
	}
	access, err := NewSigner(testKey(5), issuer, service).Sign(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(string) (ed25519.PublicKey, error) { return public(testKey(5)), nil }
	if _, err := VerifyAssertion(forge(testKey(5), header, payload), start, lookup); err != nil {
		t.Fatalf("the unchanged assertion is refused: %v", err)
	}

	for name, tc := range map[string]struct {
		token string
		at    time.Time
	}{
		"nothing":                {token: ""},
		"an access token":        {token: access},
		"another gateway's key":  {token: forge(testKey(6), header, payload)},
		"no typ":                 {token: forge(testKey(5), `{"alg":"EdDSA"}`, payload)},
		"a kid":                  {token: forge(testKey(5), `{"alg":"EdDSA","typ":"gw+jwt","kid":"k"}`, payload)},
		"another audience":       {token: replaced("httvps-control", service)},
		"no audience":            {token: replaced(`"aud":"httvps-control",`, "")},
		"issued by someone else": {token: replaced(`"iss":"`+gateway, `"iss":"`+device)},
		"no issue time":          {token: replaced(fmt.Sprintf(`"iat":%d,`, start.Unix()), "")},
		"valid for 16 minutes":   {token: replaced(fmt.Sprintf(`"exp":%d`, start.Unix()+900), fmt.Sprintf(`"exp":%d`, start.Unix()+960))},
		"long over":              {token: forge(testKey(5), header, payload), at: start.Add(AssertionLifetime + AssertionLeeway + time.Second)},
		"not begun":              {token: forge(testKey(5), header, payload), at: start.Add(-AssertionLeeway - time.Second)},
		"two subjects":           {token: replaced(`"sub"`, `"sub":"x","sub"`)},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.at.IsZero() {
				tc.at = start
			}
			if id, err := VerifyAssertion(tc.token, tc.at, lookup); !errors.Is(err, ErrInvalid) || id != "" {
				t.Errorf("VerifyAssertion = %q, %v, want ErrInvalid", id, err)
			}
		})
	}
}

func TestAFailedLookupIsNotTheGatewaysFault(t *testing.T) {
	token, err := SignAssertion(testKey(5), gateway, start)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("database is gone")
	_, err = VerifyAssertion(token, start, func(string) (ed25519.PublicKey, error) { return nil, broken })
	if !errors.Is(err, broken) || errors.Is(err, ErrInvalid) {
		t.Errorf("VerifyAssertion = %v, want the lookup's error and not ErrInvalid", err)
	}
}

func TestThumbprintIsThatOfRFC8037(t *testing.T) {
	key, err := rawURL.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") // RFC 8037, appendix A.2
	if err != nil {
		t.Fatal(err)
	}
	const want = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" // appendix A.3
	if got := Thumbprint(key); got != want {
		t.Errorf("Thumbprint = %q, want %q", got, want)
	}
}

func TestAKeySetReadsBackAsWritten(t *testing.T) {
	set := NewJWKS(public(testKey(1)), public(testKey(2)))
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var got JWKS
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set, got); diff != "" {
		t.Errorf("key set changed on the way (-written +read):\n%s", diff)
	}
}

func TestKeySets(t *testing.T) {
	x := rawURL.EncodeToString(public(testKey(1)))
	key := func(extra string) string {
		return `{"kty":"OKP","crv":"Ed25519","kid":"a","x":"` + x + `"` + extra + `}`
	}
	many := strings.TrimSuffix(strings.Repeat(`{"kty":"RSA"},`, MaxKeys+1), ",")
	for name, tc := range map[string]struct {
		set  string
		keys int // -1: refused
	}{
		"one key":                          {set: `{"keys":[` + key("") + `]}`, keys: 1},
		"members from the future":          {set: `{"v":2,"keys":[` + key(`,"n":1`) + `]}`, keys: 1},
		"no keys":                          {set: `{"keys":[]}`},
		"a key of another kind is skipped": {set: `{"keys":[{"kty":"RSA","n":"AQAB"},` + key("") + `]}`, keys: 1},
		"another curve is skipped":         {set: `{"keys":[{"kty":"OKP","crv":"X25519","x":"AA"}]}`},
		"an encryption key is skipped":     {set: `{"keys":[` + key(`,"use":"enc"`) + `]}`},
		"not JSON":                         {set: `keys`, keys: -1},
		"no keys member":                   {set: `{}`, keys: -1},
		"keys is null":                     {set: `{"keys":null}`, keys: -1},
		"keys is an object":                {set: `{"keys":{}}`, keys: -1},
		"keys twice":                       {set: `{"keys":[],"keys":[` + key("") + `]}`, keys: -1},
		"a key that is text":               {set: `{"keys":["a"]}`, keys: -1},
		"a key without kind":               {set: `{"keys":[{"crv":"Ed25519"}]}`, keys: -1},
		"a private key":                    {set: `{"keys":[` + key(`,"d":"AA"`) + `]}`, keys: -1},
		"one id for two keys":              {set: `{"keys":[` + key("") + `,` + key("") + `]}`, keys: -1},
		"a key without id":                 {set: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + x + `"}]}`, keys: -1},
		"a short key":                      {set: `{"keys":[` + strings.Replace(key(""), x, x[:42], 1) + `]}`, keys: -1},
		"17 keys":                          {set: `{"keys":[` + many + `]}`, keys: -1},
		"64 KiB and a byte":                {set: `{"keys":[]}` + strings.Repeat(" ", MaxKeySetSize), keys: -1},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ParseJWKS([]byte(tc.set))
			if tc.keys < 0 {
				if err == nil {
					t.Errorf("ParseJWKS = %d keys, want an error", len(set.Keys))
				}
				return
			}
			if err != nil || len(set.Keys) != tc.keys {
				t.Errorf("ParseJWKS = %d keys, %v, want %d", len(set.Keys), err, tc.keys)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(forge(testKey(1), accessHeader(), accessPayload()))
	f.Add(forge(testKey(1), `{"alg":"none"}`, `{}`))
	f.Add("..")
	verifier := testVerifier()
	want, err := verifier.Verify(forge(testKey(1), accessHeader(), accessPayload()))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := verifier.Verify(token)
		if err == nil && got != want {
			t.Fatalf("accepted %q, which nobody signed", token)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("Verify(%q) = %v, want ErrInvalid", token, err)
		}
		_, err = VerifyAssertion(token, start, func(string) (ed25519.PublicKey, error) { return public(testKey(5)), nil })
		if err == nil {
			t.Fatalf("accepted assertion %q, which nobody signed", token)
		}
	})
}

func FuzzParseJWKS(f *testing.F) {
	good, err := json.Marshal(NewJWKS(public(testKey(1))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseJWKS(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(set)
		if err != nil {
			t.Fatalf("accepted but cannot write: %v", err)
		}
		back, err := ParseJWKS(again)
		if err != nil || !cmp.Equal(set, back) {
			t.Fatalf("reads back as %v, %v, want %v", back, err, set)
		}
	})
}
