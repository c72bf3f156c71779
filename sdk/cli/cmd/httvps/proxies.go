package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/credential"
	"github.com/httvps/httvps/sdk/cli/internal/direct"
	"github.com/httvps/httvps/sdk/cli/internal/httpproxy"
	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/cli/internal/socks"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// proxyFlags are the flags about proxies, as they were given.
type proxyFlags struct {
	socks, http             string
	socksPublic, httpPublic bool
	login                   string
	direct                  []string
	directFile              string
}

func (f *proxyFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.socks, "socks", "127.0.0.1:1080", "address of the SOCKS5 proxy; port 0 for any free one, no host for 127.0.0.1")
	flags.BoolVar(&f.socksPublic, "socks-public", false, "let --socks be an address that other machines can reach")
	flags.StringVar(&f.http, "http", "", "address of an HTTP proxy, such as 127.0.0.1:8118 (default none)")
	flags.BoolVar(&f.httpPublic, "http-public", false, "let --http be an address that other machines can reach")
	flags.StringVar(&f.login, "proxy-login", "", "file of one line USER:PASSWORD that programs have to show to the proxies (default: none is asked for)")
	flags.StringSliceVar(&f.direct, "direct", nil, "what the proxies reach without the tunnel: "+direct.Form+" (its networks); may be repeated")
	flags.StringVar(&f.directFile, "direct-file", "", "file of such rules, one a line; # begins a comment")
}

// proxies are what programs on this machine reach the tunnel by.
type proxies struct {
	given       *proxyFlags
	login       *credential.Pair
	rules       *direct.Rules
	socks, http net.Listener // http: nil when there is none
}

// parse reads what was given. A mistake is a usage error that names the flag.
func (f *proxyFlags) parse() (*proxies, error) {
	p := &proxies{given: f}
	var err error
	if p.rules, err = f.rules(); err != nil {
		return nil, err
	}
	if f.login != "" {
		if p.login, err = credential.Read(f.login); err != nil {
			return nil, usagef("--proxy-login: %w", err)
		}
	}
	if err := judge("--socks", f.socks, f.socksPublic, p.login != nil); err != nil {
		return nil, err
	}
	if f.http == "" {
		return p, nil
	}
	return p, judge("--http", f.http, f.httpPublic, p.login != nil)
}

// judge refuses an address that is none, or one that others reach unless that is
// wanted.
func judge(flag, address string, public, guarded bool) error {
	_, err := relay.Address(address, public)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, relay.ErrPublic) && !guarded:
		return usagef("%s: %w; the proxy asks for no password, so anybody who reaches it would use your tunnel (%s-public if that is what you want)", flag, err, flag)
	case errors.Is(err, relay.ErrPublic):
		return usagef("%s: %w (%s-public if that is what you want)", flag, err, flag)
	default:
		return usagef("%s: %w", flag, err)
	}
}

// listen opens the proxies, or none.
func (p *proxies) listen(ctx context.Context) error {
	var err error
	if p.socks, err = relay.Listen(ctx, p.given.socks, p.given.socksPublic); err != nil {
		return fmt.Errorf("--socks: %w", err)
	}
	if p.given.http == "" {
		return nil
	}
	if p.http, err = relay.Listen(ctx, p.given.http, p.given.httpPublic); err != nil {
		p.close()
		return fmt.Errorf("--http: %w", err)
	}
	return nil
}

// maxRuleFile bounds what --direct-file reads.
const maxRuleFile = 4 << 20

// rules reads what is reached without the tunnel.
func (f *proxyFlags) rules() (*direct.Rules, error) {
	if f.directFile == "" {
		rules, err := direct.Parse(f.direct)
		if err != nil {
			return nil, usagef("--direct %w", err)
		}
		return rules, nil
	}
	file, err := os.Open(f.directFile)
	if err != nil {
		return nil, usagef("--direct-file: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxRuleFile+1))
	if err != nil {
		return nil, usagef("--direct-file: %w", err)
	}
	if len(text) > maxRuleFile {
		return nil, usagef("--direct-file: %s has over %d bytes", f.directFile, maxRuleFile)
	}
	all := slices.Clone(f.direct)
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	rules, err := direct.Parse(all)
	if err != nil {
		return nil, usagef("--direct and --direct-file: %w", err)
	}
	return rules, nil
}

func (p *proxies) close() {
	_ = p.socks.Close()
	if p.http != nil {
		_ = p.http.Close()
	}
}

// httpAddr is where the HTTP proxy listens, or "".
func (p *proxies) httpAddr() string {
	if p.http == nil {
		return ""
	}
	return p.http.Addr().String()
}

// parts are what serves them.
func (p *proxies) parts(client *httvps.Client) []part {
	way := &direct.Network{Rules: p.rules, Tunnel: client}
	server := &socks.Server{Dial: way.DialContext, ListenPacket: way.ListenPacket, Login: p.login}
	parts := []part{{"--socks", func(ctx context.Context) error { return server.Serve(ctx, p.socks) }}}
	if p.http != nil {
		web := &httpproxy.Server{Dial: way.DialContext, Login: p.login, Local: p.rules.Page(p.http.Addr())}
		parts = append(parts, part{"--http", func(ctx context.Context) error { return web.Serve(ctx, p.http) }})
	}
	return parts
}
