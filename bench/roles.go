package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/httvps/httvps/bench/internal/hostile"
	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/origin"
	"github.com/httvps/httvps/bench/internal/relay"
	"github.com/httvps/httvps/internal/devca"
)

// A role is a part that this program plays in a process of its own. It is told
// what to do by a line of JSON on standard input, answers in such lines, and
// ends with its input at the latest, so that none is left behind.
type role func(ctx context.Context, spec []byte, say func(any), stop <-chan struct{}) error

// roles are the first arguments that stand for a role.
var roles = map[string]role{
	"origin":       playOrigin,
	"relay-client": playRelayClient,
	"relay-server": playRelayServer,
	"bare-tls":     playBareTLS,
	"load":         playLoad,
	"devices":      playDevices,
	"hostile":      playHostile,
	"switch":       playSwitch,
	"alone":        playAlone,
	"pages":        playPages,
}

// line is where a part listens, or what it has found.
type line struct {
	Address string          `json:"address,omitempty"`
	Ready   bool            `json:"ready,omitempty"`
	Speed   float64         `json:"speed,omitempty"`
	Result  *load.Result    `json:"result,omitempty"`
	Attack  *hostile.Result `json:"attack,omitempty"`
	Crowd   *crowdResult    `json:"crowd,omitempty"`
	Switch  *switchResult   `json:"switch,omitempty"`
	Pages   []pageResult    `json:"pages,omitempty"`
}

// originSpec is what an origin is told.
type originSpec struct {
	Listen string `json:"listen"`
	Unsent int    `json:"unsent"`
}

// relaySpec is what a part of the relay is told.
type relaySpec struct {
	Authority string        `json:"authority"` // directory of the certificate authority
	Listen    string        `json:"listen"`
	Server    string        `json:"server"` // for the client
	Buffer    int           `json:"buffer"`
	Duration  time.Duration `json:"duration"` // for bare TLS
}

func play(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := bufio.NewReader(in)
	spec, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: what to do: %w", name, err)
	}
	stop := make(chan struct{})
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, r)
		close(stop)
		if name != "load" && name != "hostile" && name != "switch" { // these have something to say at their end
			cancel()
		}
	}()
	encoder := json.NewEncoder(out)
	say := func(v any) { _ = encoder.Encode(v) } // who does not listen will end us
	if err := roles[name](ctx, spec, say, stop); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", address)
}

func playOrigin(ctx context.Context, spec []byte, say func(any), _ <-chan struct{}) error {
	var what originSpec
	if err := json.Unmarshal(spec, &what); err != nil {
		return err
	}
	ln, err := listen(ctx, what.Listen)
	if err != nil {
		return err
	}
	say(line{Address: ln.Addr().String()})
	return origin.New(what.Unsent).Serve(ctx, ln)
}

// trust opens the authority and returns it with what trusts it.
func (s *relaySpec) trust(spec []byte) (*devca.Authority, *x509.CertPool, error) {
	if err := json.Unmarshal(spec, s); err != nil {
		return nil, nil, err
	}
	authority, err := devca.Open(s.Authority)
	if err != nil {
		return nil, nil, err
	}
	config, err := trustIn(s.Authority)
	if err != nil {
		return nil, nil, err
	}
	return authority, config.RootCAs, nil
}

// trustIn returns TLS settings that trust the authority kept in dir.
func trustIn(dir string) (*tls.Config, error) {
	authority, err := devca.Open(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(authority.CertFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("the authority has no certificate")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}

func playRelayClient(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec relaySpec
	_, roots, err := spec.trust(text)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(spec.Server)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, spec.Listen)
	if err != nil {
		return err
	}
	say(line{Address: ln.Addr().String()})
	return relay.New(spec.Buffer).ServeClient(ctx, ln, spec.Server, relay.ClientConfig(roots, host))
}

func playRelayServer(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec relaySpec
	authority, _, err := spec.trust(text)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(spec.Listen)
	if err != nil {
		return err
	}
	cert, err := authority.Issue(host)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, spec.Listen)
	if err != nil {
		return err
	}
	say(line{Address: ln.Addr().String()})
	return relay.New(spec.Buffer).ServeServer(ctx, ln, relay.ServerConfig(cert))
}

func playBareTLS(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec relaySpec
	authority, roots, err := spec.trust(text)
	if err != nil {
		return err
	}
	cert, err := authority.Issue("127.0.0.1")
	if err != nil {
		return err
	}
	speed, err := relay.BareTLS(ctx, relay.ServerConfig(cert), relay.ClientConfig(roots, "127.0.0.1"), spec.Buffer, spec.Duration)
	if err != nil {
		return err
	}
	say(line{Speed: speed})
	return nil
}

func playLoad(ctx context.Context, text []byte, say func(any), stop <-chan struct{}) error {
	var spec load.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	result, err := load.Run(ctx, spec, func() { say(line{Ready: true}) }, stop)
	if err != nil {
		return err
	}
	say(line{Result: &result})
	return nil
}
