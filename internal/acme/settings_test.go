package acme

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMistakesAreTold(t *testing.T) {
	t.Parallel()
	everywhere := Reach{Host: "vpn.example.org", Port443: true, Port80: true}
	for name, tc := range map[string]struct {
		settings Settings
		reach    Reach
		want     string // empty: none
	}{
		"nothing is asked for":    {Settings{Email: "nonsense"}, Reach{}, ""},
		"the least":               {Settings{Enabled: true}, everywhere, ""},
		"no address":              {Settings{Enabled: true, Email: "anna"}, everywhere, "acme.email"},
		"two addresses":           {Settings{Enabled: true, Email: "a@b.c, d@e.f"}, everywhere, "acme.email"},
		"no HTTPS":                {Settings{Enabled: true, Directory: "http://ca.example.org/dir"}, everywhere, "acme.directory"},
		"a profile with a space":  {Settings{Enabled: true, Profile: "a b"}, everywhere, "acme.profile"},
		"a proof that is none":    {Settings{Enabled: true, Challenges: []string{"dns-01"}}, everywhere, "acme.challenges"},
		"nothing can prove it":    {Settings{Enabled: true}, Reach{Host: "vpn.example.org"}, "http_listen"},
		"who forwards says so":    {Settings{Enabled: true, Challenges: []string{TLSALPN01}}, Reach{Host: "vpn.example.org"}, ""},
		"plain HTTP is not there": {Settings{Enabled: true, Challenges: []string{HTTP01}}, Reach{Host: "vpn.example.org", Port443: true}, "http_listen"},
		"a private address":       {Settings{Enabled: true}, Reach{Host: "192.168.1.4", Port443: true}, "not a public address"},
		"loopback":                {Settings{Enabled: true}, Reach{Host: "::1", Port443: true}, "not a public address"},
		"a public address":        {Settings{Enabled: true}, Reach{Host: "203.0.113.9", Port443: true}, ""},
		"a name of one word":      {Settings{Enabled: true}, Reach{Host: "localhost", Port443: true}, "not a public name"},
		"one's own authority":     {Settings{Enabled: true, Directory: "https://ca.home/dir"}, Reach{Host: "localhost", Port443: true}, ""},
	} {
		err := errors.Join(tc.settings.Problems("acme", tc.reach)...)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestAddressesNeedTheShortLivedProfileOfLetsEncrypt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		settings Settings
		hosts    []string
		want     string
	}{
		"an address":           {Settings{}, []string{"vpn.example.org", "2001:db8::1"}, shortlived},
		"a name":               {Settings{}, []string{"vpn.example.org"}, ""},
		"another authority":    {Settings{Directory: "https://ca.example.org/dir"}, []string{"192.0.2.1"}, ""},
		"what is said is used": {Settings{Profile: "classic"}, []string{"192.0.2.1"}, "classic"},
	} {
		if got := tc.settings.profile(tc.hosts); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestRootsThatAreNoneAreTold(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".absent"} {
		if err := (Settings{Enabled: true, CAFile: file}).Check(); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("Check = %v", err)
		}
	}
	if err := (Settings{CAFile: empty}).Check(); err != nil {
		t.Errorf("Check of what is not used = %v", err)
	}
}
