// Package config is the gateway's configuration: a YAML file, then the
// environment (HTTVPS_GATEWAY_…), then flags, each over the one before. A key
// that is absent keeps its default; all mistakes are reported at once.
package config

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/egress"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

// EnvPrefix begins the name of every variable that the gateway reads.
const EnvPrefix = "HTTVPS_GATEWAY_"

// maxNameRules bounds each of the lists of names.
const maxNameRules = 100_000

// The upstream modes: where streams go.
const (
	Direct  = "direct"  // to their targets, from this host
	Outline = "outline" // to their targets, through Outline (Shadowsocks) servers
	Echo    = "echo"    // nowhere; every stream gets back what it sends
	Devnull = "devnull" // nowhere; every stream is swallowed
)

// Modes lists the upstream modes.
func Modes() []string { return []string{Direct, Outline, Echo, Devnull} }

// Config is everything a gateway is told. The fields without a key are for
// the program that runs it.
type Config struct {
	// Listen is the address of the tunnel's listener, host:port.
	Listen string `yaml:"listen" env:"LISTEN"`
	// URL is where devices reach the tunnel: wss://host[:port]/path. The
	// listener serves the tunnel under this host and path, and Masquerade
	// everywhere else.
	URL string `yaml:"url" env:"URL"`
	// Fronts are other URLs, of the form of URL, at which devices reach this same
	// listener. They hear of them in their sessions.
	Fronts []string `yaml:"fronts" env:"FRONTS"`
	// DataDir holds the gateway's key and its membership, made by joining.
	DataDir string `yaml:"data_dir" env:"DATA_DIR"`
	// TLS is the certificate for the hosts of URL and Fronts.
	TLS TLS `yaml:"tls" envPrefix:"TLS_"`
	// HTTPListen is the address of plain HTTP, which sends visitors to the site over
	// HTTPS and answers http-01 challenges. Empty: none.
	HTTPListen string `yaml:"http_listen" env:"HTTP_LISTEN"`
	// AdminListen is the address of health and metrics, plain HTTP. Empty: none.
	AdminListen string `yaml:"admin_listen" env:"ADMIN_LISTEN"`
	// PprofListen is the address, on loopback, of Go's profiles. Empty: none.
	PprofListen string `yaml:"pprof_listen" env:"PPROF_LISTEN"`
	// Masquerade is the site that everybody meets who is no device.
	Masquerade Masquerade `yaml:"masquerade" envPrefix:"MASQUERADE_"`
	// Knock is what devices are known by, beside what the control plane says.
	Knock    Knock    `yaml:"knock" envPrefix:"KNOCK_"`
	Upstream Upstream `yaml:"upstream" envPrefix:"UPSTREAM_"`
	Limits   Limits   `yaml:"limits" envPrefix:"LIMITS_"`
	// Padding is what devices and gateway add to what they send.
	Padding Padding `yaml:"padding" envPrefix:"PADDING_"`
	Usage   Usage   `yaml:"usage" envPrefix:"USAGE_"`
	// MemoryLimit in bytes is what the process keeps to, for whoever runs it to set.
	// 0: what its control group allows, or GOMEMLIMIT.
	MemoryLimit int64 `yaml:"memory_limit" env:"MEMORY_LIMIT"`
	// RequireChannelBinding refuses devices whose proof is not bound to the
	// TLS connection. It must be off behind a CDN that terminates TLS, and
	// nowhere else.
	RequireChannelBinding bool `yaml:"require_channel_binding" env:"REQUIRE_CHANNEL_BINDING"`
	// LogLevel is debug, info, warn or error.
	LogLevel slog.Level `yaml:"log_level" env:"LOG_LEVEL"`
	// DrainTimeout is how long streams may go on after the gateway was told to stop and
	// devices have had a few seconds to turn to other gateways; new sessions are refused
	// meanwhile. 0: sessions end at once.
	DrainTimeout configfile.Duration `yaml:"drain_timeout" env:"DRAIN_TIMEOUT"`

	// OutageGrace is how long devices that are known here get in while the control
	// plane is away, with what it decided last; 0: not at all.
	OutageGrace configfile.Duration `yaml:"outage_grace" env:"OUTAGE_GRACE"`

	// Log takes the gateway's events; nil discards them.
	Log *slog.Logger `yaml:"-"`
	// SetLevel, unless nil, sets what Log takes: another LogLevel that comes by Reload.
	SetLevel func(slog.Level) `yaml:"-"`
	// Reload brings configurations that take this one's place while the gateway
	// runs, as far as [Config.Reloaded] says.
	Reload <-chan Config `yaml:"-"`
	// Hurry, unless nil, is closed when a gateway that was told to stop is to wait for
	// nothing more.
	Hurry <-chan struct{} `yaml:"-"`
	// OnReady is called once, when the gateway serves and its control plane
	// has answered.
	OnReady func(Ready) `yaml:"-"`
	// GetCertificate replaces TLS.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) `yaml:"-"`
	// ACME, unless nil, is used instead of a source of TLS.ACME's own. The gateway runs
	// it, once it listens; who gives it closes it.
	ACME *acme.Source `yaml:"-"`
	// Listener replaces Listen. The gateway closes it.
	Listener net.Listener `yaml:"-"`
	// Own are listeners of other parts of the process. Like the gateway's own
	// they are never a target, whatever Upstream says.
	Own []net.Addr `yaml:"-"`
	// ControlDial, unless nil, connects to a control plane in the same process,
	// without TLS. Nil: it is where the membership says.
	ControlDial func(ctx context.Context) (net.Conn, error) `yaml:"-"`
	// Version is the program's version, for the control plane and metrics.
	Version string `yaml:"-"`
}

// Ready says where a gateway can be reached.
type Ready struct {
	Gateway string // URL of the configuration
	Admin   string // address of the admin listener; empty without one
}

// TLS says where the certificate is from: files, PEM, the chain leaf first; or an
// authority that makes it.
type TLS struct {
	CertFile string        `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string        `yaml:"key_file" env:"KEY_FILE"`
	ACME     acme.Settings `yaml:"acme" envPrefix:"ACME_"`
}

// Upstream is how streams leave the gateway.
type Upstream struct {
	// Mode is one of Modes.
	Mode string `yaml:"mode" env:"MODE"`
	// Allow are exceptions from the built-in table of private, local and
	// reserved addresses.
	Allow []netip.Prefix `yaml:"allow" env:"ALLOW"`
	// Deny are addresses that no device may reach, whatever Allow says.
	Deny []netip.Prefix `yaml:"deny" env:"DENY"`
	// DeniedPorts are denied on every address.
	DeniedPorts []uint16 `yaml:"denied_ports" env:"DENIED_PORTS"`
	// AllowedPorts, unless empty, are the only ones that are not denied.
	AllowedPorts []uint16 `yaml:"allowed_ports" env:"ALLOWED_PORTS"`
	// DeniedNames are names that devices may not ask for, each with everything
	// below it; "." is every name. AllowedNames are exceptions from them. The
	// longest name that fits decides.
	DeniedNames  []string `yaml:"denied_names" env:"DENIED_NAMES"`
	AllowedNames []string `yaml:"allowed_names" env:"ALLOWED_NAMES"`
	// Outline is for the mode of that name.
	Outline OutlineServers `yaml:"outline" envPrefix:"OUTLINE_"`
}

// Usage is how the traffic of sessions is written down and told.
type Usage struct {
	// Interval is between writes to the ledger in DataDir, and so what a gateway that is
	// killed may lose of what it carried.
	Interval configfile.Duration `yaml:"interval" env:"INTERVAL"`
	// ReportInterval is between reports to the control plane.
	ReportInterval configfile.Duration `yaml:"report_interval" env:"REPORT_INTERVAL"`
	// MaxRows bounds the ledger: a session has one for each quarter of an hour in which
	// it moved something, until the control plane has it, and with many rows one alone.
	MaxRows int `yaml:"max_rows" env:"MAX_ROWS"`
}

// Limits bound what devices and strangers can make the gateway hold.
type Limits struct {
	// Sessions at once on this gateway.
	Sessions int `yaml:"sessions" env:"SESSIONS"`
	// MaxStreams of one session at once; a plan may set less.
	MaxStreams int `yaml:"max_streams" env:"MAX_STREAMS"`
	// MaxUDP flows among them; 0: no UDP. A plan may set less.
	MaxUDP int `yaml:"max_udp" env:"MAX_UDP"`
	// OpenBurst and OpenRate are the bucket from which a session pays new
	// streams: its size and what it gains per second.
	OpenBurst int `yaml:"open_burst" env:"OPEN_BURST"`
	OpenRate  int `yaml:"open_rate" env:"OPEN_RATE"`
	// EarlyWindow is how many bytes a device may send before its target
	// has answered, at most. With many streams it is less: all of them
	// together are granted a quarter of the session's budget.
	EarlyWindow int `yaml:"early_window" env:"EARLY_WINDOW"`
	// SessionBudget is the memory in bytes for one session's data in flight.
	SessionBudget int `yaml:"session_budget" env:"SESSION_BUDGET"`
	// Memory in bytes for the data in flight of all sessions; 0: a quarter of
	// what the process may use (GOMEMLIMIT, its control group, the machine).
	Memory int `yaml:"memory" env:"MEMORY"`
	// UplinkUp and UplinkDown are what all devices together may move, in bits per
	// second: from devices to targets, and back. When there is not enough for all,
	// each device has the same. 0: no limit.
	UplinkUp   int64 `yaml:"uplink_up" env:"UPLINK_UP"`
	UplinkDown int64 `yaml:"uplink_down" env:"UPLINK_DOWN"`
	// Silence ends a session from which nothing came for so long. Devices
	// ping after a third of it.
	Silence configfile.Duration `yaml:"silence" env:"SILENCE"`
	// Resume is how long a session whose connection was lost is kept for its device
	// to come back to; 0: it ends with its connection.
	Resume configfile.Duration `yaml:"resume" env:"RESUME"`
	// Dials to targets under way at once, over all sessions; one session may
	// have an eighth of them.
	Dials int `yaml:"dials" env:"DIALS"`
	// IdleTimeout ends a stream on which nothing moved for so long.
	IdleTimeout configfile.Duration `yaml:"idle_timeout" env:"IDLE_TIMEOUT"`
	// HandshakeTimeout is what a device has for its HELLO.
	HandshakeTimeout configfile.Duration `yaml:"handshake_timeout" env:"HANDSHAKE_TIMEOUT"`
	// Unauthenticated connections at once: in total, and from one network
	// (IPv4 /24, IPv6 /48).
	Unauthenticated          int `yaml:"unauthenticated" env:"UNAUTHENTICATED"`
	UnauthenticatedPerPrefix int `yaml:"unauthenticated_per_prefix" env:"UNAUTHENTICATED_PER_PREFIX"`
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Listen:      ":443",
		AdminListen: "127.0.0.1:9101",
		Knock:       Knock{Cookie: knock.DefaultCookie},
		Upstream: Upstream{
			Mode: Direct, DeniedPorts: []uint16{25, 465, 587},
			Outline: OutlineServers{
				Source:    Control,
				Resolvers: []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:53"), netip.MustParseAddrPort("9.9.9.9:53")},
				Probe:     "1.1.1.1:80", ProbeInterval: configfile.Duration(30 * time.Second),
			},
		},
		Limits: Limits{
			Sessions:                 10_000,
			MaxStreams:               256,
			MaxUDP:                   64,
			OpenBurst:                256,
			OpenRate:                 128,
			EarlyWindow:              32 << 10,
			SessionBudget:            32 << 20,
			Silence:                  configfile.Duration(90 * time.Second),
			Resume:                   configfile.Duration(wire.ResumeWindow),
			Dials:                    2_048,
			IdleTimeout:              configfile.Duration(2 * time.Hour),
			HandshakeTimeout:         configfile.Duration(10 * time.Second),
			Unauthenticated:          2_000,
			UnauthenticatedPerPrefix: 64,
		},
		Usage: Usage{
			Interval: configfile.Duration(5 * time.Second), ReportInterval: configfile.Duration(15 * time.Second), MaxRows: 500_000,
		},
		Padding:               defaultPadding(),
		RequireChannelBinding: true,
		DrainTimeout:          configfile.Duration(30 * time.Second),
		OutageGrace:           configfile.Duration(4 * time.Hour),
		LogLevel:              slog.LevelInfo,
	}
}

// Load returns the configuration of the file at path (empty: none) and of
// environ, as [os.Environ] returns it. It judges nothing yet, because flags
// may still change it: that is [Config.Validate].
func Load(path string, environ []string) (Config, error) {
	cfg := Default()
	if err := configfile.Load(path, EnvPrefix, &cfg, environ); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// Validate reports every mistake.
func (c Config) Validate() error {
	var p problems
	if c.Listener == nil {
		p.address("listen", c.Listen)
	}
	if _, err := ParseURL(c.URL); err != nil {
		p.add("url: %w", err)
	}
	c.validateFronts(&p)
	if c.DataDir == "" {
		p.add("data_dir is empty, want the directory that joining wrote to")
	}
	if c.GetCertificate == nil {
		c.TLS.validate(&p, c.Reaches())
	}
	if c.HTTPListen != "" {
		p.address("http_listen", c.HTTPListen)
	}
	if c.AdminListen != "" {
		p.address("admin_listen", c.AdminListen)
	}
	if c.PprofListen != "" {
		p.loopback("pprof_listen", c.PprofListen)
	}
	if c.MemoryLimit != 0 && (c.MemoryLimit < minMemoryLimit || c.MemoryLimit > 1<<44) {
		p.add("memory_limit is %d bytes, want %d to %d, or 0", c.MemoryLimit, minMemoryLimit, int64(1)<<44)
	}
	c.Masquerade.validate(&p)
	c.Knock.validate(&p)
	c.Upstream.validate(&p)
	c.Limits.validate(&p)
	c.Padding.validate(&p)
	p.duration("usage.interval", c.Usage.Interval, 100*time.Millisecond, time.Minute)
	p.duration("usage.report_interval", c.Usage.ReportInterval, 100*time.Millisecond, time.Hour)
	p.number("usage.max_rows", c.Usage.MaxRows, 1_000, 100_000_000)
	p.duration("drain_timeout", c.DrainTimeout, 0, wire.MaxDrain)
	p.duration("outage_grace", c.OutageGrace, 0, 24*time.Hour)
	return errors.Join(p...)
}

// minMemoryLimit is what a gateway cannot do with less of, in bytes.
const minMemoryLimit = 64 << 20

func (t TLS) validate(p *problems, reaches []acme.Reach) {
	files := t.CertFile != "" || t.KeyFile != ""
	switch {
	case files && t.ACME.Enabled:
		p.add("tls.cert_file or tls.key_file is set, and tls.acme.enabled too: want one of them to say where the certificate is from")
	case !t.ACME.Enabled && (t.CertFile == "" || t.KeyFile == ""):
		p.add("tls.cert_file and tls.key_file are both needed, or tls.acme.enabled: the tunnel is never served without TLS")
	}
	told := make(map[string]bool) // most of it is about every host
	for _, reach := range reaches {
		for _, problem := range t.ACME.Problems("tls.acme", reach) {
			if text := problem.Error(); !told[text] {
				told[text] = true
				p.add("%w", problem)
			}
		}
	}
}

func (u Upstream) validate(p *problems) {
	if !slices.Contains(Modes(), u.Mode) {
		p.add("upstream.mode is %q, want one of %q", u.Mode, Modes())
	}
	for _, list := range []struct {
		key      string
		prefixes []netip.Prefix
	}{{"allow", u.Allow}, {"deny", u.Deny}} {
		for _, prefix := range list.prefixes {
			switch {
			case !prefix.IsValid():
				p.add("upstream.%s: an entry is empty, want address/length", list.key)
			case prefix.Addr().Is4In6():
				p.add("upstream.%s: %s is IPv4 written as IPv6, want it as IPv4", list.key, prefix)
			case prefix != prefix.Masked():
				p.add("upstream.%s: %s has bits behind its length, want %s", list.key, prefix, prefix.Masked())
			}
		}
	}
	if slices.Contains(u.DeniedPorts, 0) {
		p.add("upstream.denied_ports: 0 is not a port")
	}
	if slices.Contains(u.AllowedPorts, 0) {
		p.add("upstream.allowed_ports: 0 is not a port")
	}
	u.validateNames(p)
	u.Outline.validate(p, u.Mode == Outline)
}

func (u Upstream) validateNames(p *problems) {
	for _, list := range []struct {
		key   string
		names []string
	}{{"denied_names", u.DeniedNames}, {"allowed_names", u.AllowedNames}} {
		if len(list.names) > maxNameRules {
			p.add("upstream.%s are %d, want at most %d", list.key, len(list.names), maxNameRules)
			continue
		}
		for _, name := range list.names {
			if err := egress.CheckName(name); err != nil {
				p.add("upstream.%s: %w", list.key, err)
			}
		}
	}
}

func (l Limits) validate(p *problems) {
	p.number("limits.sessions", l.Sessions, 1, 1_000_000)
	p.number("limits.max_streams", l.MaxStreams, 1, 65_536)
	p.number("limits.max_udp", l.MaxUDP, 0, 65_536)
	p.number("limits.open_burst", l.OpenBurst, 1, 65_536)
	p.number("limits.open_rate", l.OpenRate, 1, 65_536)
	p.number("limits.early_window", l.EarlyWindow, 1_024, 1<<20)
	p.number("limits.session_budget", l.SessionBudget, 1<<20, 1<<30)
	if l.Memory != 0 {
		p.number("limits.memory", l.Memory, 16<<20, 1<<44)
	}
	p.rate("limits.uplink_up", l.UplinkUp)
	p.rate("limits.uplink_down", l.UplinkDown)
	p.duration("limits.silence", l.Silence, 10*time.Second, time.Hour)
	p.duration("limits.resume", l.Resume, 0, 10*time.Minute)
	p.number("limits.dials", l.Dials, 1, 65_536)
	p.number("limits.unauthenticated", l.Unauthenticated, 1, 1_000_000)
	p.number("limits.unauthenticated_per_prefix", l.UnauthenticatedPerPrefix, 1, 1_000_000)
	p.duration("limits.idle_timeout", l.IdleTimeout, time.Minute, 24*time.Hour)
	p.duration("limits.handshake_timeout", l.HandshakeTimeout, time.Second, time.Minute)
}

// ParseURL reads a tunnel's URL: wss, a host, perhaps a port, perhaps a path.
func ParseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is empty, want wss://host[:port]/path")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("is not a URL, want wss://host[:port]/path") // the parser's error repeats the text
	}
	switch {
	case u.Scheme != "wss":
		return nil, fmt.Errorf("has the scheme %q, want wss", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("has no host, want wss://host[:port]/path")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, errors.New("has a user, query or fragment, want only wss://host[:port]/path")
	case u.Port() != "" && !validPort(u.Port(), 1):
		return nil, errors.New("has a port that is not 1 to 65535")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

func validPort(text string, lowest uint64) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port >= lowest
}

// problems collects mistakes.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

func (p *problems) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err != nil || !validPort(port, 0) {
		p.add("%s is %q, want host:port with a port of 0 to %d", key, value, math.MaxUint16)
	}
}

// loopback takes only addresses that nobody else reaches.
func (p *problems) loopback(key, value string) {
	host, port, err := net.SplitHostPort(value)
	addr, notAddr := netip.ParseAddr(host)
	if err != nil || !validPort(port, 0) || notAddr != nil || !addr.IsLoopback() {
		p.add("%s is %q, want an address on loopback with a port, such as 127.0.0.1:6060: who reaches it sees into the process", key, value)
	}
}

func (p *problems) number(key string, value, lowest, highest int) {
	if value < lowest || value > highest {
		p.add("%s is %d, want %d to %d", key, value, lowest, highest)
	}
}

// rate judges a speed in bits per second.
func (p *problems) rate(key string, value int64) {
	const lowest, highest = 1_000_000, 1_000_000_000_000
	if value != 0 && (value < lowest || value > highest) {
		p.add("%s is %d, want 0 for no limit, or %d to %d bits per second", key, value, lowest, highest)
	}
}

func (p *problems) duration(key string, value configfile.Duration, lowest, highest time.Duration) {
	if value.Std() < lowest || value.Std() > highest {
		p.add("%s is %s, want %s to %s", key, value, lowest, highest)
	}
}
