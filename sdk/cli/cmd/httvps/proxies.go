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
	login       *credential.Pair
	rules       *direct.Rules
	socks, http net.Listener // http: nil when there is none
}

// listen opens the proxies, or none.
func (f *proxyFlags) listen(ctx context.Context) (*proxies, error) {
	p := &proxies{}
	var err error
	if p.rules, err = f.rules(); err != nil {
		return nil, err
	}
	if f.login != "" {
		if p.login, err = credential.Read(f.login); err != nil {
			return nil, usagef("--proxy-login: %w", err)
		}
	}
	if p.socks, err = listenFor(ctx, "--socks", f.socks, f.socksPublic, p.login != nil); err != nil {
		return nil, err
	}
	if f.http == "" {
		return p, nil
	}
	if p.http, err = listenFor(ctx, "--http", f.http, f.httpPublic, p.login != nil); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
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

func listenFor(ctx context.Context, flag, address string, public, guarded bool) (net.Listener, error) {
	ln, err := relay.Listen(ctx, address, public)
	if errors.Is(err, relay.ErrPublic) {
		if guarded {
			return nil, usagef("%s: %w (%s-public if that is what you want)", flag, err, flag)
		}
		return nil, usagef("%s: %w; the proxy asks for no password, so anybody who reaches it would use your tunnel (%s-public if that is what you want)", flag, err, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return ln, nil
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
