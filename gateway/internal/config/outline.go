package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/sslink"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// maxOutlineKeys bounds the servers of a configuration.
	maxOutlineKeys = 64
	maxKeysFile    = 256 << 10
	maxResolvers   = 8
)

// The sources of servers.
const (
	Control = "control" // the control plane says which one each session leaves through
	Keys    = "keys"    // Keys and KeysFile list them
)

// Sources lists the sources of servers.
func Sources() []string { return []string{Control, Keys} }

// OutlineServers are the servers that streams leave through, and how they are
// used.
type OutlineServers struct {
	// Source is one of Sources.
	Source string `yaml:"source" env:"SOURCE"`
	// Keys are access keys, ss:// links, and secret.
	Keys []OutlineKey `yaml:"keys" env:"KEYS"`
	// KeysFile holds further ones, one in a line. Empty lines and those that begin
	// with # say nothing.
	KeysFile string `yaml:"keys_file" env:"KEYS_FILE"`
	// SendNames has servers whose keys say outline=1 resolve the names of targets
	// themselves: such a server refuses private addresses by itself.
	SendNames bool `yaml:"send_names" env:"SEND_NAMES"`
	// Resolvers are name servers that are asked through the servers.
	Resolvers []netip.AddrPort `yaml:"resolvers" env:"RESOLVERS"`
	// Probe is host:port of a web server that is asked through each server to see
	// whether it works. Empty: none is probed.
	Probe string `yaml:"probe" env:"PROBE"`
	// ProbeInterval is the pause between two probes of a server. For the servers of
	// the control plane that says it itself.
	ProbeInterval configfile.Duration `yaml:"probe_interval" env:"PROBE_INTERVAL"`
}

// OutlineKey is an access key in a configuration. It can be read and not be
// printed.
type OutlineKey struct{ sslink.Link }

// UnmarshalText reads an ss:// link. No error repeats a part of it.
func (k *OutlineKey) UnmarshalText(text []byte) error {
	link, err := sslink.Parse(string(text))
	if err != nil {
		return fmt.Errorf("the access key is damaged: %w", err)
	}
	k.Link = link
	return nil
}

// MarshalText returns a placeholder.
func (k OutlineKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (o OutlineServers) validate(p *problems, used bool) {
	none := len(o.Keys) == 0 && o.KeysFile == ""
	switch {
	case !slices.Contains(Sources(), o.Source):
		p.add("upstream.outline.source is %q, want one of %q", o.Source, Sources())
	case used && o.Source == Keys && none:
		p.add("upstream.outline.keys and upstream.outline.keys_file are both empty, want the access keys of the servers to leave through, " +
			"or upstream.outline.source: control, for the servers that the control plane knows")
	case used && o.Source == Control && !none:
		p.add("upstream.outline.keys or upstream.outline.keys_file is set, but upstream.outline.source is control: " +
			"want source: keys to use them, or no keys and the servers added with httvpsctl outline create")
	}
	if used && o.Source == Control && o.SendNames {
		p.add("upstream.outline.send_names is for upstream.outline.source: keys; the control plane says for each server whether it is managed")
	}
	if len(o.Keys) > maxOutlineKeys {
		p.add("upstream.outline.keys are %d, want at most %d", len(o.Keys), maxOutlineKeys)
	}
	if n := len(o.Resolvers); n < 1 || n > maxResolvers {
		p.add("upstream.outline.resolvers are %d, want 1 to %d", n, maxResolvers)
	}
	for _, resolver := range o.Resolvers {
		if !resolver.IsValid() || resolver.Port() == 0 || resolver.Addr().Zone() != "" {
			p.add("upstream.outline.resolvers: want address:port, such as 1.1.1.1:53")
		}
	}
	if o.Probe != "" {
		if _, err := ParseTarget(o.Probe); err != nil {
			p.add("upstream.outline.probe: %w", err)
		}
	}
	p.duration("upstream.outline.probe_interval", o.ProbeInterval, 5*time.Second, time.Hour)
}

// ParseTarget reads host:port.
func ParseTarget(text string) (wire.Addr, error) {
	host, port, err := net.SplitHostPort(text)
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil {
		return wire.Addr{}, errors.New("is not host:port")
	}
	return wire.AddrFromHostPort(host, uint16(number))
}

// Load returns all access keys, those of KeysFile included. Each has a tag, and no
// two the same.
func (o OutlineServers) Load() ([]OutlineKey, error) {
	keys := append([]OutlineKey(nil), o.Keys...)
	if o.KeysFile != "" {
		more, err := readKeys(o.KeysFile)
		if err != nil {
			return nil, fmt.Errorf("upstream.outline.keys_file: %w", err)
		}
		keys = append(keys, more...)
	}
	if n := len(keys); n < 1 || n > maxOutlineKeys {
		return nil, fmt.Errorf("upstream.outline: %d access keys, want 1 to %d", n, maxOutlineKeys)
	}
	taken := make(map[string]bool, len(keys))
	for i := range keys {
		if keys[i].Tag == "" {
			keys[i].Tag = "server-" + strconv.Itoa(i+1)
		}
		if taken[keys[i].Tag] {
			return nil, fmt.Errorf("upstream.outline: two access keys are called %q, want each with a name of its own behind its #", keys[i].Tag)
		}
		taken[keys[i].Tag] = true
	}
	return keys, nil
}

func readKeys(path string) ([]OutlineKey, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeysFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeysFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxKeysFile)
	}
	var (
		keys     []OutlineKey
		problems []error
		number   int
	)
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var key OutlineKey
		if err := key.UnmarshalText([]byte(line)); err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: %w", path, number, err))
		}
		keys = append(keys, key)
	}
	return keys, errors.Join(problems...)
}
