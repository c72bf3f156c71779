package tlspin_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

// signer is a certificate with its key: an authority, an intermediate or a leaf.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate signed by parent, or by itself when parent is nil.
func issue(t *testing.T, parent *signer, key *ecdsa.PrivateKey, edit func(*x509.Certificate)) *signer {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: serial.String()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	edit(template)
	if parent == nil {
		parent = &signer{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert: cert, key: key}
}

func asAuthority(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign
	c.ExtKeyUsage = nil
}

func forHost(c *x509.Certificate) {
	c.DNSNames = []string{"api.example"}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
}

func newAuthority(t *testing.T) *signer {
	t.Helper()
	return issue(t, nil, newKey(t), asAuthority)
}

// handshake runs a real TLS handshake over TCP, each end as its configuration
// says. It returns what each end saw.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		served <- conn.(*tls.Conn).HandshakeContext(t.Context())
	}()
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	clientErr = conn.HandshakeContext(t.Context())
	state = conn.ConnectionState()
	conn.Close()
	return state, clientErr, <-served
}

func serverConfig(key *ecdsa.PrivateKey, chain ...*signer) *tls.Config {
	cert := tls.Certificate{PrivateKey: key}
	for _, s := range chain {
		cert.Certificate = append(cert.Certificate, s.cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

func TestHandshakeSucceedsOnlyWithThePinnedAuthoritysServer(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	leaf := issue(t, ca, newKey(t), forHost)
	renewed := issue(t, nil, ca.key, func(c *x509.Certificate) {
		asAuthority(c)
		c.Subject = ca.cert.Subject
		c.NotAfter = time.Now().Add(2 * time.Hour)
	})
	middle := issue(t, ca, newKey(t), asAuthority)
	below := issue(t, middle, newKey(t), forHost)
	expired := issue(t, ca, newKey(t), func(c *x509.Certificate) {
		forHost(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	future := issue(t, ca, newKey(t), func(c *x509.Certificate) {
		forHost(c)
		c.NotBefore = time.Now().Add(time.Minute)
	})
	expiredCA := issue(t, nil, newKey(t), func(c *x509.Certificate) {
		asAuthority(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	belowExpired := issue(t, expiredCA, newKey(t), forHost)
	clientOnly := issue(t, ca, newKey(t), func(c *x509.Certificate) {
		forHost(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	foreign := issue(t, other, newKey(t), forHost)
	alone := issue(t, nil, newKey(t), forHost)
	aloneExpired := issue(t, nil, newKey(t), func(c *x509.Certificate) {
		forHost(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	// A leaf that the pinned authority signed must not act as an authority.
	belowLeaf := issue(t, leaf, newKey(t), forHost)

	type result int
	const (
		accepted result = iota
		notSent
		wrongName
		notValidNow
		wrongSigner
		wrongUsage
		notAuthority
		noHost
	)
	for name, tc := range map[string]struct {
		pin   tlspin.Pin
		host  string
		chain []*signer
		want  result
	}{
		"the pinned authority's leaf, by name":            {tlspin.Of(ca.cert), "api.example", []*signer{leaf, ca}, accepted},
		"the same, name in other case":                    {tlspin.Of(ca.cert), "API.Example", []*signer{leaf, ca}, accepted},
		"the same, by IPv4 address":                       {tlspin.Of(ca.cert), "127.0.0.1", []*signer{leaf, ca}, accepted},
		"the same, by IPv6 address":                       {tlspin.Of(ca.cert), "::1", []*signer{leaf, ca}, accepted},
		"authority renewed with the same key":             {tlspin.Of(ca.cert), "api.example", []*signer{leaf, renewed}, accepted},
		"an intermediate between leaf and authority":      {tlspin.Of(ca.cert), "api.example", []*signer{below, middle, ca}, accepted},
		"the intermediate is what is pinned":              {tlspin.Of(middle.cert), "api.example", []*signer{below, middle}, accepted},
		"a leaf that is pinned itself":                    {tlspin.Of(alone.cert), "api.example", []*signer{alone}, accepted},
		"a pinned leaf of an unknown authority":           {tlspin.Of(leaf.cert), "api.example", []*signer{leaf}, accepted},
		"a pinned leaf for another host":                  {tlspin.Of(alone.cert), "other.example", []*signer{alone}, wrongName},
		"a pinned leaf that has expired":                  {tlspin.Of(aloneExpired.cert), "api.example", []*signer{aloneExpired}, notValidNow},
		"another pin":                                     {tlspin.Of(other.cert), "api.example", []*signer{leaf, ca}, notSent},
		"the zero pin":                                    {tlspin.Pin{}, "api.example", []*signer{leaf, ca}, notSent},
		"another host name":                               {tlspin.Of(ca.cert), "other.example", []*signer{leaf, ca}, wrongName},
		"another address":                                 {tlspin.Of(ca.cert), "127.0.0.2", []*signer{leaf, ca}, wrongName},
		"no host to verify":                               {tlspin.Of(ca.cert), "", []*signer{leaf, ca}, noHost},
		"expired leaf":                                    {tlspin.Of(ca.cert), "api.example", []*signer{expired, ca}, notValidNow},
		"leaf of tomorrow":                                {tlspin.Of(ca.cert), "api.example", []*signer{future, ca}, notValidNow},
		"expired authority":                               {tlspin.Of(expiredCA.cert), "api.example", []*signer{belowExpired, expiredCA}, notValidNow},
		"leaf without its authority":                      {tlspin.Of(ca.cert), "api.example", []*signer{leaf}, notSent},
		"pinned authority sent, but another one signed":   {tlspin.Of(ca.cert), "api.example", []*signer{foreign, ca}, wrongSigner},
		"pinned authority sent beside the one who signed": {tlspin.Of(ca.cert), "api.example", []*signer{foreign, other, ca}, wrongSigner},
		"intermediate missing":                            {tlspin.Of(ca.cert), "api.example", []*signer{below, ca}, wrongSigner},
		"certificate for clients only":                    {tlspin.Of(ca.cert), "api.example", []*signer{clientOnly, ca}, wrongUsage},
		"signed by a leaf of the pinned authority":        {tlspin.Of(ca.cert), "api.example", []*signer{belowLeaf, leaf, ca}, notAuthority},
		"signed by a pinned leaf":                         {tlspin.Of(leaf.cert), "api.example", []*signer{belowLeaf, leaf}, notAuthority},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := tlspin.Config(tc.pin, tc.host)
			state, clientErr, serverErr := handshake(t, config, serverConfig(tc.chain[0].key, tc.chain...))

			if (clientErr == nil) != (tc.want == accepted) {
				t.Fatalf("client's handshake = %v", clientErr)
			}
			if clientErr == nil {
				if serverErr != nil {
					t.Errorf("server's handshake = %v", serverErr)
				}
				if state.Version != tls.VersionTLS13 {
					t.Errorf("version = %s, want TLS 1.3", tls.VersionName(state.Version))
				}
				return
			}
			var (
				hostname  x509.HostnameError
				invalid   x509.CertificateInvalidError
				authority x509.UnknownAuthorityError
			)
			got := map[result]bool{
				notSent:      errors.Is(clientErr, tlspin.ErrNotSent),
				noHost:       errors.Is(clientErr, tlspin.ErrNoHost),
				wrongName:    errors.As(clientErr, &hostname),
				notValidNow:  errors.As(clientErr, &invalid) && invalid.Reason == x509.Expired || errors.As(clientErr, &authority) && strings.Contains(clientErr.Error(), "expired"),
				wrongSigner:  errors.As(clientErr, &authority),
				wrongUsage:   errors.As(clientErr, &invalid) && invalid.Reason == x509.IncompatibleUsage,
				notAuthority: errors.As(clientErr, &authority) || errors.As(clientErr, &invalid) && invalid.Reason == x509.NotAuthorizedToSign,
			}
			if !got[tc.want] {
				t.Errorf("client's handshake = %v (%T), not for the expected reason", clientErr, clientErr)
			}
		})
	}
}

func TestServerWithoutThePinnedKeysSecretIsRefused(t *testing.T) {
	t.Parallel()
	// The attacker copies every certificate of the service but has no key.
	leaf := issue(t, nil, newKey(t), forHost)
	server := serverConfig(newKey(t), leaf)

	_, clientErr, _ := handshake(t, tlspin.Config(tlspin.Of(leaf.cert), "api.example"), server)

	if clientErr == nil {
		t.Error("handshake succeeded with a key that is not the certificate's")
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	leaf := issue(t, ca, newKey(t), forHost)
	server := serverConfig(leaf.key, leaf, ca)
	server.MaxVersion = tls.VersionTLS12

	if _, err, _ := handshake(t, tlspin.Config(tlspin.Of(ca.cert), "api.example"), server); err == nil {
		t.Error("handshake succeeded over TLS 1.2")
	}
}

func TestResumedConnectionsAreVerifiedToo(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	leaf := issue(t, ca, newKey(t), forHost)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = serverConfig(leaf.key, leaf, ca)
	server.StartTLS()
	defer server.Close()
	cache := tls.NewLRUClientSessionCache(1)
	request := func(pin tlspin.Pin) (resumed bool, err error) {
		config := tlspin.Config(pin, "127.0.0.1")
		config.ClientSessionCache = cache
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		return resp.TLS.DidResume, nil
	}

	if _, err := request(tlspin.Of(ca.cert)); err != nil {
		t.Fatalf("first connection: %v", err)
	}
	if resumed, err := request(tlspin.Of(ca.cert)); err != nil || !resumed {
		t.Fatalf("second connection: resumed %t, %v; want a resumed one", resumed, err)
	}
	if _, err := request(tlspin.Pin{1}); !errors.Is(err, tlspin.ErrNotSent) {
		t.Errorf("with another pin: %v, want ErrNotSent", err)
	}
}

func TestPinIsTheHashOfThePublicKey(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	spki, err := x509.MarshalPKIXPublicKey(&ca.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tlspin.Of(ca.cert), tlspin.Pin(sha256.Sum256(spki)); got != want {
		t.Errorf("Of = %v, want %v", got, want)
	}
}

func TestPinSurvivesItsText(t *testing.T) {
	t.Parallel()
	pin := tlspin.Pin(bytes.Repeat([]byte{0xfb}, 32))
	const text = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s"
	if pin.String() != text {
		t.Errorf("String = %q, want %q", pin, text)
	}
	if got, err := tlspin.Parse(text); err != nil || got != pin {
		t.Errorf("Parse = %v, %v", got, err)
	}
	encoded, err := json.Marshal(pin)
	if err != nil {
		t.Fatal(err)
	}
	var decoded tlspin.Pin
	if err := json.Unmarshal(encoded, &decoded); err != nil || decoded != pin {
		t.Errorf("through JSON %s: %v, %v", encoded, decoded, err)
	}
}

func TestOnlyAPinsOwnTextIsParsed(t *testing.T) {
	t.Parallel()
	good := tlspin.Pin{1, 2, 3}.String()
	for name, text := range map[string]string{
		"empty":                      "",
		"one character short":        good[1:],
		"one character long":         good + "A",
		"padded":                     good + "=",
		"standard alphabet":          "+" + good[1:],
		"a space inside":             " " + good[1:],
		"a line break inside":        "\n" + good[1:],
		"unused bits set":            good[:42] + "B",
		"line breaks count for none": good[:42] + "\r",
		"two bytes in one character": "é" + good[2:],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pin, err := tlspin.Parse(text); !errors.Is(err, tlspin.ErrSyntax) || pin != (tlspin.Pin{}) {
				t.Errorf("Parse(%q) = %v, %v", text, pin, err)
			}
			var pin tlspin.Pin
			if err := pin.UnmarshalText([]byte(text)); err == nil || pin != (tlspin.Pin{}) {
				t.Errorf("UnmarshalText(%q) = %v, %v", text, pin, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(tlspin.Pin{}.String())
	f.Add(strings.Repeat("_", 43))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		pin, err := tlspin.Parse(text)
		if err == nil && pin.String() != text {
			t.Errorf("%q parses, and its pin is written %q", text, pin)
		}
	})
}
