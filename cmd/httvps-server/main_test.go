package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/command"
	"github.com/httvps/httvps/internal/configfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, newRoot(environ), args, strings.NewReader(""), stdout, stderr)
}

func TestCommandLines(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("gateway:\n  lisen: x\nbackend:\n  data: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args           []string
		environ        []string
		code           int
		stdout, stderr string
	}{
		"nothing":                   {code: 2, stderr: "--data DIR is needed"},
		"an unknown command":        {args: []string{"--data", data, "serve"}, code: 2, stderr: "serve"},
		"an unknown flag":           {args: []string{"--data", data, "--prot", "1"}, code: 2, stderr: "--prot"},
		"half a command":            {args: []string{"config"}, code: 2, stderr: "config needs a command"},
		"an unknown half":           {args: []string{"config", "chekc"}, code: 2, stderr: "chekc"},
		"nothing to serve by":       {args: []string{"--data", data}, code: 1, stderr: "\nGive it in --config FILE; or only try it, with --dev"},
		"no data directory":         {code: 2, stderr: "--data DIR is needed"},
		"a check of nothing":        {args: []string{"config", "check"}, code: 1, stderr: "gateway:\nurl"},
		"help":                      {args: []string{"--help"}, stdout: "--dev"},
		"version":                   {args: []string{"version"}, stdout: "httvps-server dev\n"},
		"the same by flag":          {args: []string{"--version"}, stdout: "httvps-server dev\n"},
		"mistakes in one half":      {args: []string{"--data", data, "config", "check", "--config", bad}, code: 1, stderr: "bad.yaml:2: gateway.lisen"},
		"and in the other":          {args: []string{"--data", data, "config", "check", "--config", bad}, code: 1, stderr: "bad.yaml:4: backend.data"},
		"a misspelt variable":       {args: []string{"--data", data, "config", "check"}, environ: []string{"HTTVPS_GATEWAY_LISEN=x"}, code: 1, stderr: "HTTVPS_GATEWAY_LISEN"},
		"nothing set":               {args: []string{"--data", data, "config", "check"}, code: 1, stderr: "gateway:\nurl"},
		"no port in an address":     {args: []string{"--data", data, "config", "check", "--dev", "--api", "here"}, code: 1, stderr: `--api is "here"`},
		"a configuration for --dev": {args: []string{"--data", data, "config", "check", "--dev"}, stdout: "the configuration is valid\n"},
		"a rescue of nothing":       {args: []string{"rescue"}, code: 2, stderr: "--data DIR is needed"},
		"a rescue of nobody":        {args: []string{"--data", data, "--dev", "rescue"}, code: 1, stderr: "there is no service in"},
		"flags in one half":         {args: []string{"--data", "/srv", "config", "print", "--api", "h:1"}, stdout: "backend:\n  listen: h:1\n"},
		"variables in the other": {
			args: []string{"--data", "/srv", "config", "print"}, environ: []string{"HTTVPS_GATEWAY_URL=wss://h/t"},
			stdout: "  url: wss://h/t\n  fronts: []\n  data_dir: /srv/gateway\n",
		},
		"health of nobody": {
			args: []string{"--data", data, "health"}, environ: []string{"HTTVPS_GATEWAY_ADMIN_LISTEN=127.0.0.1:1"}, code: 1, stderr: "health",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), tc.args, tc.environ, &stdout, &stderr)
			if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("run = %d, want %d\nstdout: %s\nstderr: %s", code, tc.code, &stdout, &stderr)
			}
			if tc.code != 0 && stdout.Len() > 0 {
				t.Errorf("a failure writes to stdout: %s", &stdout)
			}
		})
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("looking made the data directory: %v", err)
	}
}

// What a configuration file is taken for, when a program is given another one's.
func TestEveryKeyThatOneProgramAloneHasIsKnownAsIts(t *testing.T) {
	keys := func(config any) map[string]bool {
		found := make(map[string]bool)
		for field := range reflect.TypeOf(config).Fields() {
			if name := field.Tag.Get("yaml"); name != "" && name != "-" {
				found[name] = true
			}
		}
		return found
	}
	programs := map[string]map[string]bool{
		"httvps-backend": keys(backend.Config{}), "httvps-gateway": keys(gateway.Config{}), "httvps-server": keys(config{}),
	}
	for program, own := range programs {
		for key := range own {
			want := program
			for other, theirs := range programs {
				if other != program && theirs[key] {
					want = ""
				}
			}
			if got := configfile.Owner(key); got != want {
				t.Errorf("%s is taken for a key of %q alone, want %q", key, got, want)
			}
		}
	}
}

func TestDevPrintsOneLineWhenDevicesCanConnect(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"--data", data, "--dev"}, []string{"HTTVPS_GATEWAY_ADMIN_LISTEN="}, write, &stderr)
		_ = write.Close()
		ended <- code
	}()
	stdout := bufio.NewReader(read)
	line, err := stdout.ReadString('\n')
	cancel()
	rest, _ := io.ReadAll(stdout) // until it has ended, which is no error
	if code := <-ended; err != nil || code != 0 {
		t.Fatalf("interrupted = %d, want 0; line: %v\n%s", code, err, &stderr)
	}
	if len(rest) > 0 {
		t.Errorf("more than one line: %s", rest)
	}
	var ready readyLine
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	if !ready.Ready || !strings.HasPrefix(ready.Gateway, "wss://127.0.0.1:") || !strings.HasPrefix(ready.Token, "hvt1.") ||
		!strings.HasPrefix(ready.Invite, ready.API+"/join#code=") || !strings.Contains(line, ",pin=") {
		t.Errorf("ready line is %s", line)
	}
	if _, err := os.Stat(ready.CA); err != nil {
		t.Errorf("the authority that the line names: %v", err)
	}
}

// A service of --dev has the same addresses again: a second start finds the first.
func TestAPortInUseIsToldWithTheWayOut(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for _, flag := range []string{"--listen", "--api"} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"--data", t.TempDir(), "--dev", flag, ln.Addr().String()}, nil, &stdout, &stderr)
		if code != 1 || !strings.Contains(stderr.String(), ln.Addr().String()) ||
			!strings.Contains(stderr.String(), "maybe this service itself: stop that, or choose another address with "+flag) {
			t.Errorf("%s: exit %d, %s", flag, code, &stderr)
		}
	}
}

// The service of --dev makes a token at each start; its rescue revokes them.
func TestARescueOfAStoppedServicePrintsALinkToIt(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	environ := []string{"HTTVPS_GATEWAY_ADMIN_LISTEN="}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	ended := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { ended <- run(ctx, []string{"--data", data, "--dev"}, environ, write, &stderr) }()
	var ready readyLine
	if err := json.NewDecoder(read).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	var stdout, said bytes.Buffer
	if code := run(t.Context(), []string{"--data", data, "--dev", "rescue"}, environ, &stdout, &said); code != 1 || stdout.Len() > 0 {
		t.Errorf("rescue of a running service = %d, %s%s", code, &stdout, &said)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Fatalf("interrupted = %d\n%s", code, &stderr)
	}
	said.Reset()
	if code := run(t.Context(), []string{"--data", data, "--dev", "rescue"}, environ, &stdout, &said); code != 0 ||
		!strings.HasPrefix(stdout.String(), ready.API+"/bootstrap#code=") || !strings.Contains(stdout.String(), ",pin=") {
		t.Errorf("rescue = %d, %s%s", code, &stdout, &said)
	}
}
