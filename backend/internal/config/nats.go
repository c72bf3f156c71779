package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// NATS says how processes that serve from one database wake each other. What goes
// over it says only that there is something new: no event depends on it.
type NATS struct {
	// URL of the server, or of several with commas between them. Empty: none, and
	// only one process may serve.
	URL NATSURL `yaml:"url" env:"URL"`
}

// NATSURL is nats://[USER:PASSWORD@]HOST[:PORT] or tls://…, or several with commas
// between them. It shows itself without the accounts; Reveal returns all of it.
type NATSURL string

// Reveal returns the URL with the credentials.
func (u NATSURL) Reveal() string { return string(u) }

func (u NATSURL) String() string {
	var shown []string
	for server := range strings.SplitSeq(string(u), ",") {
		parsed, err := url.Parse(strings.TrimSpace(server))
		switch {
		case server == "":
			continue
		case err != nil || parsed.Host == "":
			return "(secret)" // all of it may be
		case parsed.User != nil:
			shown = append(shown, parsed.Scheme+"://(secret)@"+parsed.Host)
		default:
			shown = append(shown, parsed.Scheme+"://"+parsed.Host)
		}
	}
	return strings.Join(shown, ",")
}

// GoString keeps %#v from showing the secret.
func (u NATSURL) GoString() string { return u.String() }

// MarshalText keeps encoders from showing the secret.
func (u NATSURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// problem says what is wrong with the URL, without any part of it.
func (u NATSURL) problem() error {
	for server := range strings.SplitSeq(string(u), ",") {
		parsed, err := url.Parse(strings.TrimSpace(server))
		switch {
		case err != nil:
			return errors.New("is not a URL; in the password, characters other than letters, digits and -._~ are written %XX")
		case parsed.Scheme != "nats" && parsed.Scheme != "tls":
			return errors.New("does not begin with nats:// or tls://")
		case parsed.Hostname() == "":
			return errors.New("names no host")
		case parsed.Path != "" && parsed.Path != "/" || parsed.RawQuery != "" || parsed.Fragment != "":
			return errors.New("has something behind the host")
		}
	}
	return nil
}

// maxReplicas is far beyond what a database serves well.
const maxReplicas = 100

// replicaProblems returns everything that is wrong with how processes serve
// together.
func (c Config) replicaProblems() []error {
	var problems []error
	if c.NATS.URL != "" {
		if err := c.NATS.URL.problem(); err != nil {
			problems = append(problems, fmt.Errorf("nats.url %w", err))
		}
	}
	if c.Replicas < 1 || c.Replicas > maxReplicas {
		problems = append(problems, fmt.Errorf("replicas is %d, want 1 to %d", c.Replicas, maxReplicas))
	}
	if c.Replicas > 1 && c.DatabasePath() != "" {
		problems = append(problems, fmt.Errorf("replicas is %d, which takes PostgreSQL (database.url): only one process may have an SQLite file", c.Replicas))
	}
	if c.Replicas > 1 && c.NATS.URL == "" {
		problems = append(problems, fmt.Errorf("replicas is %d without nats.url: each would learn late of what the others write", c.Replicas))
	}
	return problems
}
