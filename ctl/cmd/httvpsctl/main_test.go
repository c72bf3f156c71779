package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/httvps/httvps/internal/totp"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"httvpsctl": main})
}

// TestScripts plays the scripts in testdata against a service of their own.
//
// Each has in its environment: API (address), TOKEN (with the pin), BARE_TOKEN
// (without), WRONG_PIN (a token with another pin), BOOTSTRAP (a link), CERT (the
// service's certificate in a file), and is not logged in.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			t, ok := env.T().(testing.TB)
			if !ok {
				return fmt.Errorf("%T is no testing.TB", env.T())
			}
			f := newFake(t)
			cert := filepath.Join(env.WorkDir, "service.pem")
			env.Setenv("API", f.server.URL)
			env.Setenv("TOKEN", f.token())
			env.Setenv("SECRET", fakeSecret)
			env.Setenv("BARE_TOKEN", "hvt1."+fakeSecret)
			env.Setenv("WRONG_PIN", "hvt1."+fakeSecret+"."+tlspin.Pin{1}.String())
			env.Setenv("PIN", f.pin.String())
			env.Setenv("BOOTSTRAP", f.server.URL+"/bootstrap#code="+fakeCode+",pin="+f.pin.String())
			env.Setenv("CERT", cert)
			// A race-detecting command waits a second before it exits, unless told otherwise.
			env.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			return os.WriteFile(cert, pemOf(f.server.Certificate().Raw), 0o600)
		},
		Cmds: commands,
	})
}

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"exits":  exits,
	"mode":   mode,
	"secret": secret,
	"field":  field,
	"lines":  lines,
	"item":   item,
}

// appSecret is in the authenticator app of everybody in these scripts.
const appSecret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

// lines FILE LINE...: writes lines, for stdin. SECRET stands for the app's secret, and
// CODE+N for its code in N times 30 seconds.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	secret, err := totp.ParseSecret(appSecret)
	ts.Check(err)
	var text strings.Builder
	for _, line := range args[1:] {
		if ahead, isCode := strings.CutPrefix(line, "CODE"); isCode {
			steps, err := strconv.Atoi(ahead)
			ts.Check(err)
			line = totp.Code(secret, totp.Step(time.Now())+int64(steps))
		}
		text.WriteString(strings.ReplaceAll(line, "SECRET", appSecret) + "\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text.String()), 0o600))
}

// item LIST N VARIABLE: the variable becomes the Nth text of a list of the object on
// stdout.
func item(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	var list []string
	ts.Check(json.Unmarshal(object[args[0]], &list))
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Setenv(args[2], list[n])
}

// field NAME VARIABLE: the variable becomes that field of the object on stdout.
func field(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	value, ok := object[args[0]].(string)
	if !ok {
		ts.Fatalf("no field %s", args[0])
	}
	ts.Setenv(args[1], value)
}

// exits CODE ARG...: httvpsctl ends with this code, and neither of its outputs
// holds the token.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("httvpsctl", args[1:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("httvpsctl: %v", err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if leaks([]byte(ts.ReadFile(name))) {
			ts.Fatalf("%s holds the token", name)
		}
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("httvpsctl %s: exit code %d, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// mode MODE FILE: the file has these permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// secret VARIABLE FILE: writes the variable's value as a line, for stdin.
func secret(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(ts.Getenv(args[0])+"\n"), 0o600))
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
