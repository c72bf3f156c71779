package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/httvps/httvps/sdk/cli/internal/home"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/mux"
)

var proxyUntilDone = part{"--socks", func(ctx context.Context) error {
	<-ctx.Done()
	return nil
}}

func TestTheTimeoutIsForTheFirstConnectionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, errs := newOutput(), newOutput()
		tn := &tunnel{stdout: out, stderr: errs, socks: "127.0.0.1:1", timeout: 20 * time.Second}
		lost := errors.New("network is down")
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		start := time.Now()
		err := tn.run(ctx, func(ctx context.Context) error {
			tn.event(httvps.Event{Kind: httvps.Connected, Gateway: "wss://a/b", Session: "1"})
			tn.event(httvps.Event{Kind: httvps.Disconnected, Gateway: "wss://a/b", Session: "1", Err: lost})
			for ctx.Err() == nil {
				tn.event(httvps.Event{Kind: httvps.Waiting, Wait: time.Minute, Err: lost})
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
			}
			return ctx.Err()
		}, proxyUntilDone)
		if took := time.Since(start); err != nil || took != 24*time.Hour {
			t.Errorf("it ended after %v with %v, not when the user ended it", took, err)
		}
	})
}

func TestTheNextAttemptIsToldInSecondsOrAsNow(t *testing.T) {
	for wait, want := range map[time.Duration]string{
		0:                       "retrying now: no route\n",
		999 * time.Millisecond:  "retrying now: no route\n",
		time.Second:             "retrying in 1s: no route\n",
		1234 * time.Millisecond: "retrying in 1.2s: no route\n",
	} {
		stderr := newOutput()
		(&tunnel{stderr: stderr}).event(httvps.Event{Kind: httvps.Waiting, Wait: wait, Err: errors.New("no route")})
		if stderr.String() != want {
			t.Errorf("%v: %q, want %q", wait, stderr, want)
		}
	}
}

func TestWithoutAFirstConnectionItEndsInTimeAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := &tunnel{stdout: newOutput(), stderr: newOutput(), timeout: 20 * time.Second}
		away := &httvps.UnreachableError{Errs: []error{errors.New("no route")}}
		start := time.Now()
		err := tn.run(t.Context(), func(ctx context.Context) error {
			tn.event(httvps.Event{Kind: httvps.Waiting, Wait: time.Minute, Err: away})
			<-ctx.Done()
			return ctx.Err()
		}, proxyUntilDone)
		if took := time.Since(start); !errors.Is(err, error(away)) || took != 20*time.Second || exitCode(err) != exitUnreachable {
			t.Errorf("it ended after %v with %v", took, err)
		}
	})
}

func TestAProxyThatFailsEndsTheTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := &tunnel{stdout: newOutput(), stderr: newOutput(), timeout: time.Minute}
		broken := errors.New("listener broke")
		err := tn.run(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, part{"--socks", func(context.Context) error { return broken }})
		if !errors.Is(err, broken) || exitCode(err) != exitFailure {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestPatienceWithAnotherConnectHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := time.Now()
		store, err := takeHome(t.Context(), func() (*home.Store, error) { return nil, home.ErrInUse }, words.English, io.Discard)
		if store != nil || !errors.Is(err, home.ErrInUse) || exitCode(err) != exitFailure {
			t.Errorf("takeHome = %v, %v", store, err)
		}
		if took := time.Since(from); took != patience {
			t.Errorf("given up after %v, want %v", took, patience)
		}
	})
}

// A gateway gives a reason in words of its own, and so does the certificate of
// whoever answers in its place.
func TestWhatOthersSayDoesNotReachTheTerminalAsCommands(t *testing.T) {
	for name, err := range map[string]error{
		"CLOSE":         fmt.Errorf("gone: %w", &mux.CloseError{Reason: "\x1b]52;c;cm0=\a\nconnected to vpn.example", Remote: true}),
		"a certificate": x509.HostnameError{Host: "vpn.example", Certificate: &x509.Certificate{DNSNames: []string{"\x1b[2J\x9b1m\u202e"}}},
	} {
		stderr := newOutput()
		tn := &tunnel{stderr: stderr, over: func() bool { return false }}
		tn.event(httvps.Event{Kind: httvps.Disconnected, Gateway: "wss://a/b", Err: err})
		tn.lost = false
		tn.event(httvps.Event{Kind: httvps.Waiting, Wait: time.Minute, Err: err})
		tell(stderr, words.English, "connect", err)
		if told := stderr.String(); strings.Count(told, "\n") != 3 || strings.ContainsAny(told, "\x1b\a\u009b\u202e") || !utf8.ValidString(told) {
			t.Errorf("%s is told as %q", name, told)
		}
	}
}
