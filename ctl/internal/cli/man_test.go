package cli_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/httvps/httvps/ctl/internal/cli"
)

func refuseAll(t *testing.T) http.HandlerFunc {
	t.Helper()
	return func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the service got %s", r.URL) }
}

var flagName = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`)

func TestTheManualPageHasEveryCommandAndFlag(t *testing.T) {
	code, page, stderr := run(t.Context(), t, refuseAll(t), "man")
	if code != cli.ExitOK || stderr != "" {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "help.golden"))
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.ReplaceAll(page, `\-`, "-")
	flags := 0
	for part := range strings.SplitSeq("\n"+string(golden), "\n## httvpsctl") {
		command, help, _ := strings.Cut(part, "\n")
		command = "httvpsctl " + strings.TrimSpace(command)
		if strings.HasPrefix(command, "httvpsctl completion ") {
			continue // a page for each shell
		}
		if command != "httvpsctl " && !strings.Contains(plain, ".SS "+command) {
			t.Errorf("no %q", command)
		}
		for _, found := range flagName.FindAllStringSubmatch(help, -1) {
			if flags++; found[1] != "help" && found[1] != "version" && !strings.Contains(plain, "--"+found[1]) {
				t.Errorf("%s: no --%s", command, found[1])
			}
		}
	}
	if flags < 100 {
		t.Errorf("%d flags were looked for", flags)
	}
	for _, want := range []string{".SH EXIT STATUS", ".SH FILES", ".SH ENVIRONMENT"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestCompletionIsThereForEveryShell(t *testing.T) {
	for shell, want := range map[string]string{
		"bash": "complete ", "zsh": "#compdef httvpsctl", "fish": "complete -c httvpsctl", "powershell": "Register-ArgumentCompleter",
	} {
		if code, stdout, stderr := run(t.Context(), t, refuseAll(t), "completion", shell); code != cli.ExitOK || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d, %s", shell, code, stderr)
		}
	}
}

func TestTheShellIsOfferedWordsAndNames(t *testing.T) {
	names := map[string]string{"users": "anna bob andy", "plans": "basic big", "regions": "eu us", "outline-servers": "eu-1"}
	asked := make(map[string]bool)
	service := func(w http.ResponseWriter, r *http.Request) {
		asked[r.URL.Query().Get("q")] = true
		var rows []string
		for name := range strings.FieldsSeq(names[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]) {
			if strings.HasPrefix(name, r.URL.Query().Get("q")) {
				rows = append(rows, fmt.Sprintf(`{"id":"x","name":%q,"code":%[1]q}`, name))
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"items":[%s],"next":null}`, strings.Join(rows, ","))
	}
	for typed, want := range map[string]string{
		"user show an": "andy anna", "user update b": "bob", "why ": "andy anna bob", "subscription create --user a": "andy anna",
		"subscription create --plan ": "basic big", "plan delete bi": "big", "gateway create --region ": "eu us", "outline show ": "eu-1",
		"user show anna ": "", "top --by ": "device gateway region session user", "top --sort r": "rate", "user list -o ": "json table", "usage series --by w": "week",
		"plan create --quota-period ": "day month none rolling week", "bulk move --to ": "basic big",
	} {
		args := append([]string{"__complete"}, strings.Split(typed, " ")...)
		code, stdout, _ := run(t.Context(), t, service, args...)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		offered := lines[:len(lines)-1] // the last says what the shell does with them
		slices.Sort(offered)
		if got := strings.Join(offered, " "); code != cli.ExitOK || got != want {
			t.Errorf("%q: exit code %d, offered %q, want %q", typed, code, got, want)
		}
	}
	if !asked["an"] || asked["bi"] {
		t.Errorf("the service was asked to search for %v, want it for users alone", asked)
	}
	// A service that does not answer offers nothing, and says nothing over what is typed.
	code, stdout, _ := run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "__complete", "user", "show", "a")
	if code != cli.ExitOK || !strings.HasPrefix(stdout, ":") {
		t.Errorf("without an answer: exit code %d, %q", code, stdout)
	}
}
