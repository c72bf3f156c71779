package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Database says where the records are: in an SQLite file, or in a PostgreSQL
// database when URL or URLFile is set.
type Database struct {
	// Path of the SQLite file. Empty: backend.db in the data directory.
	Path string `yaml:"path" env:"PATH"`
	// URL of a PostgreSQL database, with the account's password.
	URL DatabaseURL `yaml:"url" env:"URL"`
	// URLFile is a file that holds the URL instead.
	URLFile string `yaml:"url_file" env:"URL_FILE"`
	// MaxConnections bounds the connections to PostgreSQL of this process.
	MaxConnections int `yaml:"max_connections" env:"MAX_CONNECTIONS"`
}

// defaultMaxConnections leaves room for several processes under PostgreSQL's own
// default of 100.
const defaultMaxConnections = 10

// maxURLFile is the size in bytes of the largest URLFile that is read.
const maxURLFile = 4 << 10

// DatabaseURL is a PostgreSQL URL, postgres://USER:PASSWORD@HOST[:PORT]/NAME. It
// shows itself without the account and the parameters; Reveal returns all of it.
type DatabaseURL string

// Reveal returns the URL with the password.
func (u DatabaseURL) Reveal() string { return string(u) }

func (u DatabaseURL) String() string {
	if u == "" {
		return ""
	}
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "postgres" && parsed.Scheme != "postgresql" {
		return "(secret)" // all of it may be
	}
	shown := url.URL{Scheme: "postgres", Host: parsed.Host, Path: parsed.Path}
	if parsed.User != nil {
		return strings.Replace(shown.String(), "://", "://(secret)@", 1)
	}
	return shown.String()
}

// GoString keeps %#v from showing the secret.
func (u DatabaseURL) GoString() string { return u.String() }

// MarshalText keeps encoders from showing the secret.
func (u DatabaseURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// problem says what is wrong with the URL, without any part of it.
func (u DatabaseURL) problem() error {
	parsed, err := url.Parse(string(u))
	switch {
	case err != nil:
		return errors.New("is not a URL; in the password, characters other than letters, digits and -._~ are written %XX")
	case parsed.Scheme != "postgres" && parsed.Scheme != "postgresql":
		return errors.New("does not begin with postgres://")
	case parsed.Fragment != "" || strings.HasSuffix(string(u), "#"):
		return errors.New("has a fragment; in the password, # is written %23")
	case strings.Trim(parsed.Path, "/") == "" && parsed.Query().Get("dbname") == "":
		return errors.New("names no database: want postgres://USER:PASSWORD@HOST[:PORT]/NAME")
	case parsed.Host == "" && parsed.Query().Get("host") == "":
		return errors.New("names no host")
	case parsed.Query().Get("sslmode") == "" && !isOnMachine(parsed):
		return errors.New("says nothing about TLS to another machine: add sslmode=verify-full (with sslrootcert=FILE for an authority " +
			"of your own), or sslmode=disable on a network that nobody else is on")
	}
	return nil
}

// isOnMachine reports whether all servers of a URL are on this machine.
func isOnMachine(u *url.URL) bool {
	hosts := strings.Split(u.Host, ",")
	if other := u.Query().Get("host"); other != "" { // replaces the one in front
		hosts = strings.Split(other, ",")
	}
	for _, host := range hosts {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && !strings.HasPrefix(host, "/") && (err != nil || !addr.IsLoopback()) {
			return false
		}
	}
	return true
}

// problems returns everything that is wrong.
func (d Database) problems() []error {
	var problems []error
	given := 0
	for _, text := range []string{d.Path, d.URL.Reveal(), d.URLFile} {
		if text != "" {
			given++
		}
	}
	if given > 1 {
		problems = append(problems, errors.New("database.path, database.url and database.url_file exclude each other"))
	}
	if d.URL != "" {
		if err := d.URL.problem(); err != nil {
			problems = append(problems, fmt.Errorf("database.url %w", err))
		}
	}
	if d.MaxConnections < 1 || d.MaxConnections > 1000 {
		problems = append(problems, fmt.Errorf("database.max_connections is %d, want 1 to 1000", d.MaxConnections))
	}
	return problems
}

// Source returns where the records are: the path of an SQLite file, or the URL of
// a PostgreSQL database, which is read from URLFile now if it is there.
func (c Config) Source() (path string, u DatabaseURL, err error) {
	if c.Database.URLFile != "" {
		u, err = readURL(c.Database.URLFile)
		if err != nil {
			return "", "", fmt.Errorf("database.url_file: %w", err)
		}
		return "", u, nil
	}
	if c.Database.URL != "" {
		if err := c.Database.URL.problem(); err != nil {
			return "", "", fmt.Errorf("database.url %w", err)
		}
		return "", c.Database.URL, nil
	}
	return c.DatabasePath(), "", nil
}

func readURL(path string) (DatabaseURL, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxURLFile+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxURLFile {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxURLFile)
	}
	u := DatabaseURL(strings.TrimSpace(string(text)))
	if err := u.problem(); err != nil {
		return "", fmt.Errorf("what %s holds %w", path, err)
	}
	return u, nil
}

// DatabasePath returns where the SQLite file is, or nothing when the records are
// in PostgreSQL.
func (c Config) DatabasePath() string {
	switch {
	case c.Database.URL != "" || c.Database.URLFile != "":
		return ""
	case c.Database.Path != "":
		return c.Database.Path
	default:
		return filepath.Join(c.DataDir, "backend.db")
	}
}
