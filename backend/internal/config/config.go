// Package config says how a control plane is set up: from a YAML file, then
// HTTVPS_BACKEND_ variables, then flags.
package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/internal/certfile"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/knock"
)

// EnvPrefix begins the names of the variables that are settings.
const EnvPrefix = "HTTVPS_BACKEND_"

// Config is how a control plane is set up. Start from Default.
type Config struct {
	// Listen is the address (HOST:PORT) of the device and gateway API.
	Listen string `yaml:"listen" env:"LISTEN"`
	// AdminListen is the address of the admin API, health and metrics. When empty
	// they are served at Listen.
	AdminListen string `yaml:"admin_listen" env:"ADMIN_LISTEN"`
	// HTTPListen is the address of plain HTTP, which sends visitors on to HTTPS and
	// answers http-01 challenges. Empty: none.
	HTTPListen string `yaml:"http_listen" env:"HTTP_LISTEN"`
	// PublicURL (https://HOST[:PORT]) is where devices and gateways reach Listen;
	// links carry it. Empty: the address of Listen.
	PublicURL string `yaml:"public_url" env:"PUBLIC_URL"`
	// AdminURL (https://HOST[:PORT]) is where operators reach AdminListen. Empty:
	// the address of AdminListen.
	AdminURL string `yaml:"admin_url" env:"ADMIN_URL"`
	// ServiceName is what people see as the name of the service.
	ServiceName string `yaml:"service_name" env:"SERVICE_NAME"`
	// DataDir holds the key-encryption keys and the database, unless they are elsewhere.
	DataDir string `yaml:"data_dir" env:"DATA_DIR"`
	// KEKFile holds the keys that the service's secrets are sealed with, one to a
	// line. Empty: "kek" in DataDir, which is made at the first start.
	KEKFile string `yaml:"kek_file" env:"KEK_FILE"`
	// KEK are these keys instead of a file. It is not for configuration files.
	KEK KEK `yaml:"-" env:"KEK"`
	// Database says where the records are.
	Database Database `yaml:"database" envPrefix:"DATABASE_"`
	// Backup says how they are backed up.
	Backup Backup `yaml:"backup" envPrefix:"BACKUP_"`
	// Webhooks says where operators may have messages sent to.
	Webhooks Webhooks `yaml:"webhooks" envPrefix:"WEBHOOKS_"`
	// Replicas is how many processes serve from the same database.
	Replicas int `yaml:"replicas" env:"REPLICAS"`
	// NATS says how they wake each other when there is something new.
	NATS NATS `yaml:"nats" envPrefix:"NATS_"`
	// Certificate is used when TLS is nil.
	Certificate Certificate `yaml:"tls" envPrefix:"TLS_"`
	// GatewayHeartbeat is how often gateways report; they count as gone after three.
	GatewayHeartbeat configfile.Duration `yaml:"gateway_heartbeat" env:"GATEWAY_HEARTBEAT"`
	// KnockCookie is the name of the cookie by which devices make themselves
	// known to gateways.
	KnockCookie string `yaml:"knock_cookie" env:"KNOCK_COOKIE"`
	// KnockRotation is how long devices get the same key for that.
	KnockRotation configfile.Duration `yaml:"knock_rotation" env:"KNOCK_ROTATION"`
	// RefusalsPerMinute is how often a client address may present a wrong code.
	RefusalsPerMinute int `yaml:"refusals_per_minute" env:"REFUSALS_PER_MINUTE"`
	// Limits bound what strangers can make the service hold.
	Limits Limits `yaml:"limits" envPrefix:"LIMITS_"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log_level" env:"LOG_LEVEL"`

	// What follows comes from the program, not from files.

	// Listener replaces Listen, which still names the address. Run closes it.
	Listener net.Listener `yaml:"-"`
	// Local, unless nil, is a listener in memory at which the API is served
	// without TLS, too, for a gateway in the same process. Run closes it.
	Local net.Listener `yaml:"-"`
	// TLS is used by all listeners instead of Certificate when not nil.
	TLS *tls.Config `yaml:"-"`
	// Pin is appended to links and tokens when our own authority signed the certificate.
	Pin string `yaml:"-"`
	// Dev makes a user, a plan, a subscription, an invitation and an API token at each start.
	Dev bool `yaml:"-"`
	// LocalGateway is the wss URL of a gateway in the same process, if there is one.
	LocalGateway string `yaml:"-"`
	// Log takes the log; nil discards it.
	Log *slog.Logger `yaml:"-"`
	// SetLevel, unless nil, sets what Log takes: another LogLevel that comes by Reload.
	SetLevel func(slog.Level) `yaml:"-"`
	// Reload brings configurations that take this one's place while the control
	// plane runs, as far as [Config.Reloaded] says.
	Reload <-chan Config `yaml:"-"`
	// OnReady is called once when the service answers.
	OnReady func(Ready) `yaml:"-"`
}

// Limits hold for each network listener by itself.
type Limits struct {
	// Unauthenticated connections at once: in total, and from one network
	// (IPv4 /24, IPv6 /48).
	Unauthenticated          int `yaml:"unauthenticated" env:"UNAUTHENTICATED"`
	UnauthenticatedPerPrefix int `yaml:"unauthenticated_per_prefix" env:"UNAUTHENTICATED_PER_PREFIX"`
}

// Certificate says where the certificate is from: PEM files, or an authority that
// makes it.
type Certificate struct {
	CertFile string        `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string        `yaml:"key_file" env:"KEY_FILE"`
	ACME     acme.Settings `yaml:"acme" envPrefix:"ACME_"`
}

// Absent reports whether nothing is said about a certificate.
func (c Certificate) Absent() bool { return c.CertFile == "" && c.KeyFile == "" && !c.ACME.Enabled }

// Ready says where a started service is. Its links and its token are secrets.
type Ready struct {
	API         string // base address of the device and gateway API, with the secret prefix
	Admin       string // base address of the admin API
	Bootstrap   string // one-time link, only while there is no operator
	Invite      string // with Dev
	Token       string // with Dev
	GatewayJoin string // with LocalGateway

	Listeners []net.Addr // at which it listens, with the admin API's
}

// Default returns the settings that hold unless said otherwise.
func Default() Config {
	return Config{
		Listen:            "127.0.0.1:8443",
		ServiceName:       "HTTVPS",
		DataDir:           "data",
		Database:          Database{MaxConnections: defaultMaxConnections},
		Backup:            Backup{Interval: configfile.Duration(24 * time.Hour), Keep: 7},
		Replicas:          1,
		GatewayHeartbeat:  configfile.Duration(5 * time.Second),
		KnockCookie:       knock.DefaultCookie,
		KnockRotation:     configfile.Duration(7 * 24 * time.Hour),
		RefusalsPerMinute: 5,
		Limits:            Limits{Unauthenticated: 1_000, UnauthenticatedPerPrefix: 128},
		LogLevel:          "info",
	}
}

// Load returns the settings of the file at path (empty: none) and environ
// without judging them: flags may follow. Validate judges.
func Load(path string, environ []string) (Config, error) {
	c := Default()
	if err := configfile.Load(path, EnvPrefix, &c, environ); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Level returns LogLevel as slog wants it.
func (c Config) Level() (slog.Level, error) {
	switch c.LogLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log_level is %q, want debug, info, warn or error", c.LogLevel)
	}
}

// The bounds of KnockRotation: a key is in force for a day after the next one is
// given out.
const (
	minKnockRotation = 24 * time.Hour
	maxKnockRotation = 365 * 24 * time.Hour
)

// Validate returns everything that is wrong, joined.
func (c Config) Validate() error {
	var problems []error
	complain := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	check := func(key, address string) (host string) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			complain("%s is %q, want HOST:PORT", key, address)
		}
		return host
	}
	host := check("listen", c.Listen)
	if c.PublicURL == "" && isUnspecified(host) {
		complain("public_url is empty, want https://HOST[:PORT]: it cannot be guessed from listen %q", c.Listen)
	}
	if c.AdminListen != "" {
		host := check("admin_listen", c.AdminListen)
		if c.AdminURL == "" && isUnspecified(host) {
			complain("admin_url is empty, want https://HOST[:PORT]: it cannot be guessed from admin_listen %q", c.AdminListen)
		}
	} else if c.AdminURL != "" {
		complain("admin_url is set without admin_listen")
	}
	if c.PublicURL != "" && !isBase(c.PublicURL) {
		complain("public_url is not https://HOST[:PORT] alone, without a path or credentials")
	}
	if c.AdminURL != "" && !isBase(c.AdminURL) {
		complain("admin_url is not https://HOST[:PORT] alone, without a path or credentials")
	}
	if c.ServiceName == "" || len(c.ServiceName) > 100 {
		complain("service_name has %d bytes, want 1 to 100", len(c.ServiceName))
	}
	if c.DataDir == "" {
		complain("data_dir is empty")
	}
	problems = append(problems, c.keyProblems()...)
	problems = append(problems, c.Database.problems()...)
	problems = append(problems, c.Backup.problems()...)
	problems = append(problems, c.Webhooks.problems()...)
	problems = append(problems, c.replicaProblems()...)
	if c.HTTPListen != "" {
		check("http_listen", c.HTTPListen)
	}
	if c.TLS == nil {
		problems = append(problems, c.Certificate.problems(c.Reach())...)
	}
	if d := time.Duration(c.GatewayHeartbeat); d < time.Second || d > time.Minute {
		complain("gateway_heartbeat is %v, want 1s to 1m", d)
	}
	if err := knock.ValidCookieName(c.KnockCookie); err != nil {
		complain("knock_cookie: %w", err)
	}
	if d := time.Duration(c.KnockRotation); d < minKnockRotation || d > maxKnockRotation {
		complain("knock_rotation is %v, want %v to %v", d, minKnockRotation, maxKnockRotation)
	}
	if c.RefusalsPerMinute < 1 || c.RefusalsPerMinute > 6000 {
		complain("refusals_per_minute is %d, want 1 to 6000", c.RefusalsPerMinute)
	}
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"limits.unauthenticated", c.Limits.Unauthenticated},
		{"limits.unauthenticated_per_prefix", c.Limits.UnauthenticatedPerPrefix},
	} {
		if limit.value < 1 || limit.value > 1_000_000 {
			complain("%s is %d, want 1 to 1000000", limit.key, limit.value)
		}
	}
	if _, err := c.Level(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func (c Certificate) problems(reach acme.Reach) []error {
	var problems []error
	files := c.CertFile != "" || c.KeyFile != ""
	switch {
	case files && c.ACME.Enabled:
		problems = append(problems, errors.New("tls.cert_file or tls.key_file is set, and tls.acme.enabled too: want one of them to say where the certificate is from"))
	case !c.ACME.Enabled && (c.CertFile == "" || c.KeyFile == ""):
		problems = append(problems, errors.New("tls.cert_file and tls.key_file are both needed, or tls.acme.enabled: the API is never served without TLS"))
	}
	return append(problems, c.ACME.Problems("tls.acme", reach)...)
}

// Hosts are the names under which others reach the listeners, the public one's
// first.
func (c Config) Hosts() []string {
	hosts := []string{hostOf(c.PublicURL, c.Listen)}
	if c.AdminListen != "" {
		hosts = append(hosts, hostOf(c.AdminURL, c.AdminListen))
	}
	return hosts
}

// NamedHosts are the hosts of PublicURL and AdminURL, for which an authority makes
// certificates; without them, that of Listen.
func (c Config) NamedHosts() []string {
	hosts := []string{hostOf(c.PublicURL, c.Listen)}
	if c.AdminURL != "" {
		hosts = append(hosts, hostOf(c.AdminURL, ""))
	}
	return hosts
}

// hostOf is the host under which others reach a listener: its URL's, or without
// one that of the address it was configured with.
func hostOf(rawURL, address string) string {
	if u, err := url.Parse(rawURL); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	host, _, _ := net.SplitHostPort(address)
	return host
}

// Reach says where an authority finds this control plane.
func (c Config) Reach() acme.Reach {
	reach := acme.Reach{Host: c.Hosts()[0], Port80: c.HTTPListen != ""}
	if u, err := url.Parse(c.PublicURL); err == nil && c.PublicURL != "" {
		reach.Port443 = u.Port() == "" || u.Port() == "443"
	} else {
		_, port, _ := net.SplitHostPort(c.Listen)
		reach.Port443 = port == "443"
	}
	return reach
}

// Check looks at the files that a valid configuration names. It returns every one
// that would keep the control plane from starting, and warns of what devices will
// object to.
func (c Config) Check() (warnings []string, err error) {
	var problems []error
	if c.TLS == nil && c.Certificate.CertFile != "" {
		warnings, err = certfile.Check(certfile.Config{CertFile: c.Certificate.CertFile, KeyFile: c.Certificate.KeyFile, Hosts: c.Hosts()})
		if err != nil {
			problems = append(problems, fmt.Errorf("tls.cert_file and tls.key_file: %w", err))
		}
	}
	if err := c.Certificate.ACME.Check(); err != nil {
		problems = append(problems, fmt.Errorf("tls.%w", err))
	}
	if _, _, err := c.Source(); err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, c.Backup.check()...)
	return warnings, errors.Join(problems...)
}

// Reloaded returns c with those settings of next that can take c's place while the
// control plane runs.
func (c Config) Reloaded(next Config) Config {
	if c.Certificate.CertFile != "" && next.Certificate.CertFile != "" && next.Certificate.KeyFile != "" {
		c.Certificate.CertFile, c.Certificate.KeyFile = next.Certificate.CertFile, next.Certificate.KeyFile
	}
	c.Limits = next.Limits
	if c.SetLevel != nil {
		c.LogLevel = next.LogLevel
	}
	return c
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func isBase(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && u.Path == "" &&
		!strings.ContainsAny(s, "?#")
}
