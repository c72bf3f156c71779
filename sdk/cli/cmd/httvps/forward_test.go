package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestForwardsAreToldInTheOrderOfTheirFlagsAndLeadToTheirTargets(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	defer origin.Close()
	s := start(t, httvpstest.Options{Dial: func(ctx context.Context, target wire.Addr) (net.Conn, error) {
		if target.String() != "origin.test:80" {
			return nil, io.EOF
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", origin.Listener.Addr().String())
	}})
	stdout, _, _ := begin(t, "connect", "--home", enrolled(t, s), "--socks", ":0",
		"-L", "tcp:0:origin.test:80", "--forward", "udp:127.0.0.1:0:[2001:db8::1]:53")
	stdout.waitFor(t, "\n")
	told := parseReady(t, stdout.String()).Forwards
	if len(told) != 2 {
		t.Fatalf("forwards: %+v", told)
	}
	for _, f := range told {
		if host, port, err := net.SplitHostPort(f.Listen); err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("a forward listens on %q", f.Listen)
		}
	}
	want := []forwarded{
		{Proto: "tcp", Listen: told[0].Listen, Target: "origin.test:80"},
		{Proto: "udp", Listen: told[1].Listen, Target: "[2001:db8::1]:53"},
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("forwards (-want +told):\n%s", diff)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if body, err := get(t, client, "http://"+told[0].Listen+"/"); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
}

func TestWithoutForwardsTheReadyLineHasAnEmptyList(t *testing.T) {
	s := start(t, httvpstest.Options{})
	stdout, _, _ := begin(t, "connect", "--home", enrolled(t, s), "--socks", ":0")
	stdout.waitFor(t, "\n")
	if !strings.Contains(stdout.String(), `"forwards":[]}`) {
		t.Errorf("the ready line is %s", stdout)
	}
}

func TestAForwardWhosePortIsInUseExitsWith1AndNamesIt(t *testing.T) {
	s := start(t, httvpstest.Options{})
	home := enrolled(t, s)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	flag := "tcp:" + ln.Addr().String() + ":host:80"
	code, stdout, stderr := call(t, "connect", "--home", home, "--socks", ":0", "-L", "udp:0:host:53", "-L", flag)
	if code != 1 || stdout != "" || !strings.Contains(stderr, "-L "+flag+": ") || !strings.Contains(stderr, "in use") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
