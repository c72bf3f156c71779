package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/internal/command"
)

// exec runs the command in an empty environment but for what is given.
func exec(t *testing.T, environ []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = command.Run(t.Context(), newRoot(environ), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

const example = "../../config/example-config.yaml"

func TestUsageErrorsExitWith2(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":            {},
		"an unknown command": {"frobnicate"},
		"an unknown flag":    {"serve", "--frobnicate"},
		"an extra argument":  {"serve", "now"},
		"join without link":  {"join"},
		"join without place": {"join", "https://h/gateway-join#code=x"},
		"config alone":       {"config"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, stdout, stderr := exec(t, nil, "", args...); code != command.ExitUsage || stdout != "" || stderr == "" {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

func TestConfigCheckTellsEveryMistakeAndExitsWith1(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("listen: nonsense\nurl: ws://h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := exec(t, nil, "", "config", "check", "--config", file)
	if code != command.ExitFailure {
		t.Errorf("exit %d", code)
	}
	for _, part := range []string{"listen is", "want wss", "data_dir", "tls.cert_file"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("no word about %q in %s", part, stderr)
		}
	}
	if code, stdout, stderr := exec(t, nil, "", "config", "check", "--config", example); code != 0 || stdout != "the configuration is valid\n" {
		t.Errorf("the example: exit %d, %q, %s", code, stdout, stderr)
	}
}

func TestFlagsOverrideTheEnvironmentAndTheEnvironmentTheFile(t *testing.T) {
	environ := []string{"HTTVPS_GATEWAY_LISTEN=127.0.0.1:1", "HTTVPS_GATEWAY_DATA_DIR=/env"}
	code, stdout, stderr := exec(t, environ, "", "config", "print", "--config", example, "--listen", "127.0.0.1:2")
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, line := range []string{"listen: 127.0.0.1:2", "data_dir: /env", "url: wss://gateway.example.com/tunnel"} {
		if !strings.Contains(stdout, line+"\n") {
			t.Errorf("no %q in\n%s", line, stdout)
		}
	}
}

func TestServeWithoutMembershipSaysHowToGetOne(t *testing.T) {
	dir := t.TempDir()
	code, stdout, stderr := exec(t, nil, "", "serve", "--config", example, "--data", dir)
	if code != command.ExitFailure || stdout != "" || !strings.Contains(stderr, dir) || !strings.Contains(stderr, "httvps-gateway join LINK` with the same configuration") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestJoinTakesTheLinkFromStdinAndNeverShowsIt(t *testing.T) {
	const link = "https://127.0.0.1:1/gateway-join#code=ABCDEFGHIJKLMNOPQRSTUVWXY2"
	code, stdout, stderr := exec(t, nil, link+"\n", "join", "-", "--data", t.TempDir(), "--url", "wss://h/t")
	if code != command.ExitFailure || strings.Contains(stdout+stderr, "ABCDEFGHIJKLMNOPQRSTUVWXY2") || !strings.Contains(stderr, "refused") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHealthOfNoGatewayExitsWith1(t *testing.T) {
	if code, _, stderr := exec(t, nil, "", "health", "--admin-listen", "127.0.0.1:1"); code != command.ExitFailure || !strings.Contains(stderr, "health") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, _ := exec(t, nil, "", "version"); code != 0 || stdout != "httvps-gateway "+version+"\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestJoiningAgainSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gateway.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := exec(t, nil, "", "join", "https://127.0.0.1:1/gateway-join#code=ABCDEFGHIJKLMNOPQRSTUVWXY2", "--data", dir, "--url", "wss://h/t")
	if code != command.ExitFailure || !strings.Contains(stderr, "joined a service already") || !strings.Contains(stderr, "another data directory") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestAnInvitationOfADeviceIsToldFromAJoinLink(t *testing.T) {
	code, _, stderr := exec(t, nil, "", "join", "https://h/p/join#code=ABCDEFGHIJKLMNOPQRSTUVWXY2", "--data", t.TempDir(), "--url", "wss://h/t")
	if code != command.ExitFailure || !strings.Contains(stderr, "it is an invitation for a device") || strings.Contains(stderr, "ABCDEFG") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
