package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The README's commands are run as they stand there, and its files are judged
// by the programs that they are for.

var codeBlock = regexp.MustCompile("(?s)```(sh|yaml)\n(.*?)```")

// blocks returns the code under a heading of a README, by language.
func blocks(t *testing.T, readme, heading string) (sh, yaml []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", readme))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "### "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", readme, heading)
	}
	section, _, _ = strings.Cut(section, "\n##")
	for _, m := range codeBlock.FindAllStringSubmatch(section, -1) {
		if m[1] == "sh" {
			sh = append(sh, m[2])
		} else {
			yaml = append(yaml, m[2])
		}
	}
	return sh, yaml
}

func TestReadmeTryItOnOneMachine(t *testing.T) {
	far := startOrigin(t)
	sh, _ := blocks(t, "README.md", "Try it on one machine")
	if len(sh) != 2 {
		t.Fatalf("%d blocks of commands, want 2", len(sh))
	}
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	script := "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + sh[0] + sh[1] +
		"code=0; wait $! || code=$?\necho \"connect ended with $code\"\n"
	script = strings.NewReplacer("https://example.com/", far.URL()+"/1000", "127.0.0.1:1080", freePort(t)).Replace(script)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{"connect ended with 3", "device_revoked", "/join#code="} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if far.Requests() != 1 {
		t.Errorf("the far end saw %d requests, want 1", far.Requests())
	}
}

func TestReadmeConfigurationsAreValid(t *testing.T) {
	_, server := blocks(t, "README.md", "A real server")
	_, apart := blocks(t, "README.md", "Gateways elsewhere")
	if len(server) != 1 || len(apart) != 1 {
		t.Fatalf("%d and %d files, want 1 and 1", len(server), len(apart))
	}
	for program, text := range map[string]string{"httvps-server": server[0], "httvps-backend": apart[0]} {
		file := writeFile(t, filepath.Join(t.TempDir(), "config.yaml"), text)
		if r := run(t, "", nil, program, "config", "check", "--config", file); r.code != 0 {
			t.Errorf("%s config check: %s", program, r.stderr)
		}
	}
}

var comment = regexp.MustCompile(` *#.*`)

func TestReadmesHaveTheSameCommands(t *testing.T) {
	plain := func(code []string) string {
		text := strings.ReplaceAll(strings.Join(code, ""), "ССЫЛКА", "LINK")
		return comment.ReplaceAllString(text, "")
	}
	for english, russian := range map[string]string{
		"Try it on one machine": "Попробовать на одной машине", "A real server": "Настоящий сервер", "Day to day": "Каждый день", "Gateways elsewhere": "Шлюзы в других местах",
	} {
		sh, yaml := blocks(t, "README.md", english)
		shRu, yamlRu := blocks(t, "README.ru.md", russian)
		if plain(sh) != plain(shRu) || plain(yaml) != plain(yamlRu) {
			t.Errorf("%q and %q differ", english, russian)
		}
	}
}
