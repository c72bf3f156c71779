package nodes

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

func TestJoinProvesTheKeyAndKeepsTheMembership(t *testing.T) {
	c := newControl(t)
	var body map[string]any
	answer := c.handle["/api/v1/gateway/join"]
	c.handle["/api/v1/gateway/join"] = func(b map[string]any) (int, any) { body = b; return answer(b) }
	m := c.membership(t)
	m.Link = strings.Replace(m.Link, joinCode, strings.ToLower(joinCode), 1) // as somebody may have typed it
	m.Dir = filepath.Join(m.Dir, "made", "here")
	state, err := Join(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	want := State{GatewayID: gatewayID, API: c.url, Pin: c.pin, ServiceID: serviceID, Issuer: issuer, Region: "local"}
	if diff := cmp.Diff(want, state); diff != "" {
		t.Error(diff)
	}
	public, _ := base64url.DecodeString(body["public_key"].(string))
	signature, _ := base64url.DecodeString(body["signature"].(string))
	hash := sha256.Sum256([]byte(joinCode))
	signed := append([]byte("HTTVPS1 join\x00"), hash[:]...)
	signed = append(append(signed, public...), c.nonce...)
	if !ed25519.Verify(public, signed, signature) {
		t.Error("the signature does not cover code, key and nonce")
	}
	loaded, key, err := LoadState(m.Dir)
	if err != nil || loaded != want || !key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(public)) {
		t.Errorf("LoadState = %+v, %v", loaded, err)
	}
	for _, file := range []string{keyFile, stateFile} {
		info, err := os.Stat(filepath.Join(m.Dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if _, err := Join(t.Context(), m); !errors.Is(err, ErrJoined) {
		t.Errorf("joining again = %v, want ErrJoined", err)
	}
}

func TestJoinIsRepeatedWithTheSameKeyAfterALostAnswer(t *testing.T) {
	c := newControl(t)
	var keys []string
	answer := c.handle["/api/v1/gateway/join"]
	c.handle["/api/v1/gateway/join"] = func(b map[string]any) (int, any) {
		keys = append(keys, b["public_key"].(string))
		if len(keys) == 1 {
			return 502, nil
		}
		return answer(b)
	}
	m := c.membership(t)
	if _, err := Join(t.Context(), m); err == nil {
		t.Fatal("no error")
	}
	if _, _, err := LoadState(m.Dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("LoadState between = %v, want ErrNotJoined", err)
	}
	if _, err := Join(t.Context(), m); err != nil || keys[0] != keys[1] {
		t.Errorf("Join = %v with the keys %q", err, keys)
	}
}

func TestJoinRefusesDamagedLinksWithoutRepeatingThem(t *testing.T) {
	c := newControl(t)
	for name, link := range map[string]string{
		"nothing":              "",
		"not a URL":            "https://h\x7f/gateway-join#code=" + joinCode,
		"plain http":           strings.Replace(c.link(), "https", "http", 1),
		"an invitation":        strings.Replace(c.link(), "gateway-join", "join", 1),
		"no code":              c.url + "/gateway-join#pin=" + c.pin,
		"a code cut off":       strings.Replace(c.link(), joinCode, joinCode[:25], 1),
		"a code with a 1":      strings.Replace(c.link(), joinCode, joinCode[:25]+"1", 1),
		"two codes":            c.link() + ",code=" + joinCode,
		"another separator":    strings.Replace(c.link(), ",pin=", "&pin=", 1),
		"the code in the path": c.url + "/gateway-join?code=" + joinCode,
		"a pin cut off":        c.link()[:len(c.link())-1],
	} {
		t.Run(name, func(t *testing.T) {
			m := c.membership(t)
			m.Link = link
			_, err := Join(t.Context(), m)
			if err == nil || strings.Contains(err.Error(), joinCode[:25]) {
				t.Errorf("Join = %v", err)
			}
		})
	}
	if n := c.count("/api/v1/auth/challenge"); n != 0 {
		t.Errorf("%d requests for damaged links", n)
	}
}

func TestJoinTrustsOnlyThePinnedControlPlane(t *testing.T) {
	c := newControl(t)
	for name, pin := range map[string]string{
		"another pin":            ",pin=" + tlspin.Pin(sha256.Sum256([]byte("another"))).String(),
		"the public authorities": "",
	} {
		t.Run(name, func(t *testing.T) {
			m := c.membership(t)
			m.Link = c.url + "/gateway-join#code=" + joinCode + pin
			if _, err := Join(t.Context(), m); err == nil || strings.Contains(err.Error(), joinCode) {
				t.Errorf("Join = %v", err)
			}
		})
	}
	if n := c.count("/api/v1/auth/challenge"); n != 0 {
		t.Errorf("%d requests reached a server that is not trusted", n)
	}
}

func TestJoinTellsWhyItWasRefused(t *testing.T) {
	c := newControl(t)
	refuse := func(status int, code string) {
		c.handle["/api/v1/gateway/join"] = func(map[string]any) (int, any) {
			return status, map[string]any{"code": code, "detail": "x"}
		}
	}
	m := c.membership(t)
	refuse(422, "invalid_request")
	_, err := Join(t.Context(), m)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 422 || status.Code != "invalid_request" {
		t.Errorf("Join = %v", err)
	}
	refuse(403, "invalid_invitation")
	_, err = Join(t.Context(), m)
	if !errors.Is(err, ErrLinkSpent) || strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "httvpsctl gateway create") {
		t.Errorf("Join with a link that is used = %v, want ErrLinkSpent", err)
	}
	if _, _, err := LoadState(m.Dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("LoadState = %v", err)
	}
}

func TestDamagedStateIsAnErrorThatNamesTheFile(t *testing.T) {
	c := newControl(t)
	for name, tc := range map[string]struct {
		file string
		text string
	}{
		"no JSON":              {stateFile, "{"},
		"another JSON":         {stateFile, "{}"},
		"an API without TLS":   {stateFile, `{"gateway_id":"` + gatewayID + `","api":"http://h","service_id":"s","issuer":"i"}`},
		"a pin that is none":   {stateFile, `{"gateway_id":"` + gatewayID + `","api":"https://h","pin":"x","service_id":"s","issuer":"i"}`},
		"too large":            {stateFile, strings.Repeat(" ", maxState+1)},
		"a key that is none":   {keyFile, "hello"},
		"a key of other bytes": {keyFile, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.membership(t)
			if _, err := Join(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(m.Dir, tc.file), []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := LoadState(m.Dir); err == nil || errors.Is(err, ErrNotJoined) || !strings.Contains(err.Error(), tc.file) {
				t.Errorf("LoadState = %v", err)
			}
		})
	}
}
