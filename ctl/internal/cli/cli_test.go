package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/httvps/httvps/ctl/internal/cli"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs one command against a service and returns what it printed.
func run(ctx context.Context, t *testing.T, handler http.HandlerFunc, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	var out, errs bytes.Buffer
	environment := map[string]string{
		"HTTVPS_API":      server.URL,
		"HTTVPS_TOKEN":    "hvt1." + secret + "." + tlspin.Of(server.Certificate()).String(),
		"XDG_CONFIG_HOME": t.TempDir(),
	}
	code = cli.Run(ctx, cli.Process{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string { return environment[name] },
	})
	if all := out.String() + errs.String(); strings.Contains(all, secret) {
		t.Errorf("the token was printed: %s", all)
	}
	return code, out.String(), errs.String()
}

func items(w http.ResponseWriter, from, to int, next string) {
	w.Header().Set("Content-Type", "application/json")
	rows := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		rows = append(rows, fmt.Sprintf(`{"id":"%d","name":"twin"}`, i))
	}
	_, _ = fmt.Fprintf(w, `{"items":[%s],"next":%s}`, strings.Join(rows, ","), next)
}

func TestInterruptEndsTheCommand(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	code, stdout, stderr := run(ctx, t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel(errors.New("interrupt signal received"))
		<-r.Context().Done()
	}, "user", "create", "--name", "alice", "--idempotency-key", "k1")
	want := "httvpsctl: interrupted. It may have been done all the same: repeating it with --idempotency-key k1 does not do it twice\n"
	if code != cli.ExitFailed || stdout != "" || stderr != want {
		t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, stdout, stderr, want)
	}
}

func TestCreateWithoutARequiredFlagIsAUsageError(t *testing.T) {
	for _, test := range []struct{ command, want string }{
		{"user create", "user create needs --name"},
		{"user create --note x", "user create needs --name"},
		{"user create --name=", "user create needs --name"},
		{"plan create", "plan create needs --name"},
		{"plan create --max-devices 3", "plan create needs --name"},
		{"gateway create", "gateway create needs --name and --region"},
		{"gateway create --name ams1", "gateway create needs --region"},
		{"gateway create --name ams1 --region=", "gateway create needs --region"},
		{"gateway create --region nl", "gateway create needs --name"},
		{"region create", "region create needs --code"},
		{"region create --name Netherlands", "region create needs --code"},
		{"user create alice", "want 0: httvpsctl user create --name NAME"},
		{"plan create basic", "want 0: httvpsctl plan create --name NAME"},
		{"gateway create ams1 --region nl", "want 0: httvpsctl gateway create --name NAME --region REGION"},
		{"region create nl", "want 0: httvpsctl region create --code CODE"},
	} {
		t.Run(test.command, func(t *testing.T) {
			code, stdout, stderr := run(t.Context(), t, func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("the service got %s %s", r.Method, r.URL)
			}, strings.Fields(test.command)...)
			line, _, _ := strings.Cut(stderr, "\n")
			if code != cli.ExitUsage || stdout != "" || !strings.Contains(line, test.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, stdout, stderr, test.want)
			}
		})
	}
}

func TestWhatIsNoIDIsAUsageErrorBeforeAnyRequest(t *testing.T) {
	const uuid = "00000000-0000-7000-8000-000000000001"
	for command, want := range map[string]string{
		"device show phone":                           `"phone" is not a device id; see httvpsctl device list`,
		"device revoke " + strings.Repeat("0", 32):    "is not a device id; see httvpsctl device list",
		"device update {" + uuid + "} --name x":       "is not a device id; see httvpsctl device list",
		"gateway delete ams1 --yes":                   `"ams1" is not a gateway id; see httvpsctl gateway list`,
		"subscription update 1 --ends-at 2099-01-01":  `"1" is not a subscription id; see httvpsctl subscription list`,
		"session show " + uuid:                        "is not a session id; see httvpsctl session list",
		"session list --user alice --device phone":    `"phone" is not a device id; see httvpsctl device list`,
		"session list --user alice --gateway ams1":    `"ams1" is not a gateway id; see httvpsctl gateway list`,
		"session list --user alice --state old":       `--state is "old"`,
		"user uninvite alice https://h/join#code=abc": "is not an invitation id; see httvpsctl user invitations",
	} {
		t.Run(command, func(t *testing.T) {
			code, stdout, stderr := run(t.Context(), t, func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("the service got %s %s", r.Method, r.URL)
			}, strings.Fields(command)...)
			if code != cli.ExitUsage || stdout != "" || !strings.Contains(stderr, want) {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, stdout, stderr, want)
			}
		})
	}
}

func TestAFlagThatIsNoNumberSaysWhatIsWanted(t *testing.T) {
	for command, want := range map[string]string{
		"plan create --name x --max-devices many": "httvpsctl: --max-devices: want a whole number\n",
		"plan create --name x --max-udp=1.5":      "httvpsctl: --max-udp: want a whole number\n",
		"user list --limit 1e3":                   "httvpsctl: --limit: want a whole number\n",
		"user invite alice --ttl 24":              "httvpsctl: --ttl: want a time with its unit, such as 30s or 24h\n",
		"user delete alice --yes=maybe":           "httvpsctl: --yes: want true or false\n",
	} {
		code, _, stderr := run(t.Context(), t, func(_ http.ResponseWriter, r *http.Request) {
			t.Errorf("the service got %s %s", r.Method, r.URL)
		}, strings.Fields(command)...)
		if code != cli.ExitUsage || !strings.HasPrefix(stderr, want) {
			t.Errorf("%s: exit code %d, stderr %q, want %q", command, code, stderr, want)
		}
	}
}

func TestVersionNamesTheProgram(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var out bytes.Buffer
		code := cli.Run(t.Context(), cli.Process{
			Args: []string{arg}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out,
			Getenv: func(string) string { return "" }, Version: "v1",
		})
		if code != cli.ExitOK || out.String() != "httvpsctl v1\n" {
			t.Errorf("%s: exit code %d, %q", arg, code, out.String())
		}
	}
}

func TestListsEndAtTheirBound(t *testing.T) {
	asked := 0
	code, stdout, stderr := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		items(w, 0, 100, fmt.Sprintf(`"c%d"`, asked)) // there is always more
	}, "user", "list")
	if code != cli.ExitOK || strings.Count(stdout, "twin") != 1000 || asked != 10 {
		t.Errorf("exit code %d, %d rows by %d requests, want 1000 by 10", code, strings.Count(stdout, "twin"), asked)
	}
	if want := "There are more: these are 1000. Continue with --cursor c10\n"; stderr != want {
		t.Errorf("stderr is %q, want %q", stderr, want)
	}
}

func TestListThatLeadsNowhereIsGivenUp(t *testing.T) {
	code, _, stderr := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		items(w, 0, 0, `"c1"`)
	}, "user", "list")
	if code != cli.ExitFailed || !strings.Contains(stderr, "the list cannot be followed") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestNameOfSeveralIsRefused(t *testing.T) {
	code, _, stderr := run(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("the service got %s %s", r.Method, r.URL)
		}
		items(w, 1, 3, "null")
	}, "user", "delete", "twin", "--yes")
	if code != cli.ExitFailed || !strings.Contains(stderr, `2 are called "twin": use the id (1, 2, …)`) {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestServiceThatCannotFilterIsSearched(t *testing.T) {
	code, stdout, stderr := run(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/7"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"7","name":"alice"}`)
		case r.URL.Query().Get("cursor") == "":
			items(w, 0, 5, `"c1"`)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"items":[{"id":"7","name":"alice"}],"next":null}`)
		}
	}, "user", "show", "alice", "-o", "json")
	if want := "{\n  \"id\": \"7\",\n  \"name\": \"alice\"\n}\n"; code != cli.ExitOK || stdout != want {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestOddTextOfTheServiceIsHarmlessOnATerminal(t *testing.T) {
	code, _, stderr := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"detail":"\u001b[2Jhvt1.`+secret+`"}`)
	}, "whoami")
	if want := "httvpsctl: conflict:  [2J(hidden)\n"; code != cli.ExitFailed || stderr != want {
		t.Errorf("exit code %d, stderr %q, want %q", code, stderr, want)
	}
}

func TestJSONForATerminalIsTheSameWithEscapes(t *testing.T) {
	code, stdout, _ := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{\"name\":\"Zoë \u009b31m\u202e&\"}")
	}, "whoami", "-o", "json")
	if want := "{\n  \"name\": \"Zoë \\u009b31m\\u202e&\"\n}\n"; code != cli.ExitOK || stdout != want {
		t.Errorf("exit code %d, stdout %q, want %q", code, stdout, want)
	}
}

func TestRepeatedInvitationHasNoLink(t *testing.T) {
	code, stdout, stderr := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"i1","link":"","expires_at":"2026-01-02T03:04:05Z"}`)
	}, "user", "invite", "00000000-0000-7000-8000-000000000001")
	if code != cli.ExitFailed || stdout != "" || !strings.Contains(stderr, "its link was shown then: make another one") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	var errs bytes.Buffer
	code := cli.Run(t.Context(), cli.Process{
		Args: []string{"version"}, Stdin: strings.NewReader(""), Stdout: full{}, Stderr: &errs,
		Getenv: func(string) string { return "" }, Version: "v1",
	})
	if code != cli.ExitFailed || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("exit code %d, stderr %q", code, errs.String())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// A terminal shows the code as well, and a program that reads the link gets that alone.
func TestATerminalShowsInvitationsAsCodes(t *testing.T) {
	const id = "00000000-0000-7000-8000-000000000001"
	const link = "https://h.example/join#code=MZXW6YTBOI2DIMRSGQ2DENZXGA"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"id":%q,"link":%q,"expires_at":"2026-01-02T03:04:05Z"}`, id, link)
	}))
	defer server.Close()
	for name, tc := range map[string]struct {
		args     []string
		terminal bool
		want     bool
	}{
		"at a terminal":            {nil, true, true},
		"into a pipe":              {nil, false, false},
		"for a program":            {[]string{"-o", "json"}, true, false},
		"into a pipe, as is asked": {[]string{"--qr", "-"}, false, true},
	} {
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), cli.Process{
			Args: append([]string{"user", "invite", id}, tc.args...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, StdoutIsTerminal: tc.terminal,
			Getenv: func(name string) string {
				return map[string]string{"HTTVPS_API": server.URL, "HTTVPS_TOKEN": "hvt1." + secret + "." + tlspin.Of(server.Certificate()).String()}[name]
			},
		})
		if got := strings.Contains(out.String(), "▀"); code != cli.ExitOK || got != tc.want || !strings.Contains(out.String(), link) || strings.Contains(errs.String(), "code=") {
			t.Errorf("%s: exit code %d, a code: %v, stderr %q", name, code, got, errs.String())
		}
	}
}

func TestThingsAreListedByNameAndAloneWithTheirIDs(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }
	var asked atomic.Int32
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		device := func(n, user int) string { return fmt.Sprintf(`{"id":%q,"user_id":%q,"name":"phone"}`, id(n), id(user)) }
		switch path := strings.TrimPrefix(r.URL.Path, "/api/v1/admin/"); path {
		case "devices":
			_, _ = fmt.Fprintf(w, `{"items":[%s,%s,%s,%s,%s],"next":null}`, device(11, 1), device(12, 1), device(13, 2), device(14, 3), device(15, 4))
		case "devices/" + id(11):
			_, _ = io.WriteString(w, device(11, 1))
		case "users/" + id(1), "users/" + id(2):
			asked.Add(1)
			_, _ = io.WriteString(w, `{"id":"x","name":"anna"}`)
		case "users/" + id(3):
			asked.Add(1)
			_, _ = io.WriteString(w, `{"id":"x","name":"b\u001b[1mob"}`)
		default:
			asked.Add(1)
			w.WriteHeader(http.StatusNotFound)
		}
	}
	code, stdout, stderr := run(t.Context(), t, handler, "device", "list")
	var users []string
	for line := range strings.Lines(stdout) {
		users = append(users, strings.Split(regexp.MustCompile(` {2,}`).ReplaceAllString(line, "|"), "|")[1])
	}
	want := []string{"USER", "anna (" + id(1) + ")", "anna (" + id(1) + ")", "anna (" + id(2) + ")", "b [1mob", id(4)}
	if diff := cmp.Diff(want, users); code != cli.ExitOK || diff != "" || asked.Load() != 4 {
		t.Errorf("exit code %d, asked %d times, %s%s", code, asked.Load(), diff, stderr)
	}
	asked.Store(0)
	if code, stdout, _ = run(t.Context(), t, handler, "device", "list", "-o", "json"); code != cli.ExitOK || asked.Load() != 0 || strings.Contains(stdout, "anna") {
		t.Errorf("for programs: exit code %d, asked %d times:\n%s", code, asked.Load(), stdout)
	}
	if code, stdout, _ = run(t.Context(), t, handler, "device", "show", id(11)); code != cli.ExitOK || !strings.Contains(stdout, "anna ("+id(1)+")") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}
