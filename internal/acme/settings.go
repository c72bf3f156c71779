package acme

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// LetsEncrypt is the directory of the authority that is asked by default.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// The ways to prove that a host is ours.
const (
	HTTP01    = "http-01"     // a file, over plain HTTP at port 80
	TLSALPN01 = "tls-alpn-01" // a certificate, over TLS at port 443
)

// Challenges lists them.
func Challenges() []string { return []string{HTTP01, TLSALPN01} }

// shortlived is the profile by which Let's Encrypt gives certificates for IP
// addresses.
const shortlived = "shortlived"

// Settings are what an operator says about his certificates. The zero value asks
// for none.
type Settings struct {
	// Enabled has certificates made, and agrees to the authority's terms.
	Enabled bool `yaml:"enabled" env:"ENABLED"`
	// Email is for the authority's messages; it may be empty.
	Email string `yaml:"email" env:"EMAIL"`
	// Directory is the authority's ACME URL. Empty: LetsEncrypt.
	Directory string `yaml:"directory" env:"DIRECTORY"`
	// CAFile holds the roots, PEM, that the authority's own server is known by.
	// Empty: those of the system.
	CAFile string `yaml:"ca_file" env:"CA_FILE"`
	// Profile is one of those that the authority has. Empty: what it gives without
	// one; for IP addresses from LetsEncrypt, "shortlived".
	Profile string `yaml:"profile" env:"PROFILE"`
	// Challenges are those that may be used. Empty: what can be answered.
	Challenges []string `yaml:"challenges" env:"CHALLENGES"`
}

// Reach says where a listener is reached from outside, and what it answers there.
type Reach struct {
	// Host is in the certificate.
	Host string
	// Port443 and Port80 say whether TLS, and plain HTTP, of this process is what
	// the authority reaches at these ports of Host.
	Port443, Port80 bool
}

var profileName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)

// Problems returns everything that is wrong; key is where the settings stand.
func (s Settings) Problems(key string, reach Reach) []error {
	if !s.Enabled {
		return nil
	}
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(key+"."+format, args...))
	}
	if s.Email != "" && (!strings.Contains(s.Email, "@") || strings.ContainsAny(s.Email, " ,\r\n")) {
		complain("email is not one address")
	}
	if s.Directory != "" {
		if u, err := url.Parse(s.Directory); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			complain("directory is not the https URL of an ACME directory, such as %s", LetsEncrypt)
		}
	}
	if !profileName.MatchString(s.Profile) {
		complain("profile is not the name of one")
	}
	for _, challenge := range s.Challenges {
		if !slices.Contains(Challenges(), challenge) {
			complain("challenges has %q, want %q", challenge, Challenges())
		}
	}
	if len(s.Challenges) == 0 && len(s.challenges(reach)) == 0 {
		complain("enabled is true, but nothing can prove that %s is this machine: want http_listen (\":80\"), or port 443 in the URL; "+
			"or challenges, where one of them is forwarded here", reach.Host)
	}
	if slices.Contains(s.Challenges, HTTP01) && !reach.Port80 {
		complain("challenges has %s, which is answered by http_listen: it is empty", HTTP01)
	}
	if err := publicHost(reach.Host); err != nil && s.directory() == LetsEncrypt {
		complain("enabled is true, but %w", err)
	}
	return problems
}

// challenges are those that are used.
func (s Settings) challenges(reach Reach) []string {
	if len(s.Challenges) > 0 {
		return s.Challenges
	}
	var can []string
	if reach.Port80 {
		can = append(can, HTTP01)
	}
	if reach.Port443 {
		can = append(can, TLSALPN01)
	}
	return can
}

func (s Settings) directory() string {
	if s.Directory == "" {
		return LetsEncrypt
	}
	return s.Directory
}

// profile is the one to ask for.
func (s Settings) profile(hosts []string) string {
	if s.Profile == "" && s.directory() == LetsEncrypt && slices.ContainsFunc(hosts, isAddress) {
		return shortlived
	}
	return s.Profile
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// publicHost says why a public authority has no certificate for a host.
func publicHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if !addr.IsGlobalUnicast() || addr.IsPrivate() {
			return fmt.Errorf("%s is not a public address: Let's Encrypt has no certificate for it", host)
		}
		return nil
	}
	switch {
	case host == "":
		return errors.New("there is no host")
	case !strings.Contains(host, "."):
		return fmt.Errorf("%s is not a public name: Let's Encrypt has no certificate for it", host)
	}
	return nil
}
