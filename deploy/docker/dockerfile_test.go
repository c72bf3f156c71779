// Package docker checks the Dockerfiles and the Compose file without building
// anything: what they name exists, and what must never be in an image is not.
package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
)

const root = "../.."

// commands are the images that run one command and end, or end when something
// is wrong: they have nothing that a probe could ask.
var commands = []string{"client", "ctl"}

type instruction struct {
	name string // upper case
	args string
}

// flags splits the leading --flags from the rest.
func (i instruction) flags() (flags map[string]string, rest []string) {
	flags = make(map[string]string)
	rest = strings.Fields(i.args)
	for len(rest) > 0 && strings.HasPrefix(rest[0], "--") {
		key, value, _ := strings.Cut(strings.TrimPrefix(rest[0], "--"), "=")
		flags[key] = value
		rest = rest[1:]
	}
	return flags, rest
}

// exec returns the words of an instruction in exec form.
func (i instruction) exec() ([]string, error) {
	var words []string
	if err := json.Unmarshal([]byte(i.args), &words); err != nil {
		return nil, fmt.Errorf("%s is not in exec form: %s", i.name, i.args)
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("%s is empty", i.name)
	}
	return words, nil
}

type stage struct {
	image, name  string
	instructions []instruction
}

func (s stage) all(name string) []instruction {
	return slices.DeleteFunc(slices.Clone(s.instructions), func(i instruction) bool { return i.name != name })
}

// one returns the only instruction of its kind.
func (s stage) one(t *testing.T, name string) instruction {
	t.Helper()
	found := s.all(name)
	if len(found) != 1 {
		t.Fatalf("%d %s instructions in the last stage, want 1", len(found), name)
	}
	return found[0]
}

// environment returns what the stage's ENV instructions set.
func (s stage) environment() map[string]string {
	set := make(map[string]string)
	for _, env := range s.all("ENV") {
		for pair := range strings.FieldsSeq(env.args) {
			key, value, _ := strings.Cut(pair, "=")
			set[key] = value
		}
	}
	return set
}

func parse(t *testing.T, file string) []stage {
	t.Helper()
	text := strings.ReplaceAll(read(t, file), "\\\n", " ")
	var stages []stage
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, args, _ := strings.Cut(line, " ")
		i := instruction{name: strings.ToUpper(name), args: strings.TrimSpace(args)}
		if i.name == "FROM" {
			_, words := i.flags()
			s := stage{image: words[0]}
			if len(words) == 3 && strings.EqualFold(words[1], "AS") {
				s.name = words[2]
			}
			stages = append(stages, s)
			continue
		}
		if len(stages) == 0 {
			t.Fatalf("%s before FROM", i.name)
		}
		last := &stages[len(stages)-1]
		last.instructions = append(last.instructions, i)
	}
	if len(stages) < 2 {
		t.Fatalf("%d stages, want a builder and an image", len(stages))
	}
	return stages
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dockerfiles returns the files of this folder by what follows "Dockerfile.".
func dockerfiles(t *testing.T) map[string][]stage {
	t.Helper()
	files, err := filepath.Glob("Dockerfile.*")
	if err != nil {
		t.Fatal(err)
	}
	parsed := make(map[string][]stage)
	for _, file := range files {
		parsed[strings.TrimPrefix(file, "Dockerfile.")] = parse(t, file)
	}
	return parsed
}

var (
	goBuild = regexp.MustCompile(`go build .*-X main\.version=\$\{VERSION\}.* -o (/out/\S+) (\./\S+)$`)
	pinned  = regexp.MustCompile(`^[a-z0-9./-]+:[a-zA-Z0-9._-]+(@sha256:[0-9a-f]{64})?$`)
	secret  = regexp.MustCompile(`(?i)(secret|passw|token|credential|(^|_)key$|(^|_)code$)`)
	someone = regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)
)

func TestImagesAreSmallPinnedAndUnprivileged(t *testing.T) {
	t.Parallel()
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, root+"/go.mod"))[1]
	for name, stages := range dockerfiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range stages {
				if s.image != "scratch" && (!pinned.MatchString(s.image) || strings.HasSuffix(s.image, ":latest")) {
					t.Errorf("FROM %s has no fixed tag", s.image)
				}
				for _, i := range slices.Concat(s.all("ENV"), s.all("ARG")) {
					for pair := range strings.FieldsSeq(i.args) {
						if key, _, _ := strings.Cut(pair, "="); secret.MatchString(key) {
							t.Errorf("%s %s: a secret would stay in the image", i.name, key)
						}
					}
				}
				if len(s.all("ADD")) > 0 {
					t.Error("ADD fetches and unpacks; want COPY")
				}
			}
			build, image := stages[0], stages[len(stages)-1]
			if !strings.HasPrefix(build.image, "golang:"+goVersion) {
				t.Errorf("built with %s, but go.mod wants Go %s", build.image, goVersion)
			}
			if env := build.environment(); env["CGO_ENABLED"] != "0" {
				t.Error("CGO_ENABLED is not 0: the last stage has no C library")
			}
			if image.image != "scratch" && !strings.HasPrefix(image.image, "gcr.io/distroless/static-debian12:") {
				t.Errorf("the image is based on %s, want scratch or distroless/static", image.image)
			}
			if user := image.one(t, "USER").args; !someone.MatchString(user) {
				t.Errorf("USER %s, want numbers that are not root's", user)
			}
			if len(image.all("RUN")) > 0 {
				t.Error("RUN in the last stage, which has no shell")
			}
			entry, err := image.one(t, "ENTRYPOINT").exec()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := image.one(t, "CMD").exec(); err != nil {
				t.Error(err)
			}
			health := image.one(t, "HEALTHCHECK")
			if slices.Contains(commands, name) {
				if health.args != "NONE" {
					t.Errorf("HEALTHCHECK %s, want NONE for a command", health.args)
				}
				return
			}
			_, command, found := strings.Cut(health.args, "CMD ")
			words, err := instruction{name: "HEALTHCHECK", args: command}.exec()
			if !found || err != nil || len(words) < 2 || words[0] != entry[0] || words[1] != "health" {
				t.Errorf("HEALTHCHECK %s, want the binary's own health command in exec form", health.args)
			}
		})
	}
}

func TestEveryBinaryHasItsImage(t *testing.T) {
	t.Parallel()
	list := regexp.MustCompile(`(?s)\nBINARIES := (.*?[^\\])\n`).FindStringSubmatch(read(t, root+"/Makefile"))
	if list == nil {
		t.Fatal("no BINARIES in the Makefile")
	}
	missing := make(map[string]bool)
	for pkg := range strings.FieldsSeq(strings.ReplaceAll(list[1], "\\", " ")) {
		missing[pkg] = true
	}
	for name, stages := range dockerfiles(t) {
		var pkg, out string
		for _, run := range stages[0].all("RUN") {
			if match := goBuild.FindStringSubmatch(run.args); match != nil {
				out, pkg = match[1], match[2]
			}
		}
		if !missing[pkg] {
			t.Errorf("%s builds %q, which is not in the Makefile's BINARIES, or has two images", name, pkg)
		}
		delete(missing, pkg)
		if path.Base(out) != path.Base(pkg) {
			t.Errorf("%s builds %s into %s", name, pkg, out)
		}
		if _, err := os.Stat(filepath.Join(root, pkg)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		image := stages[len(stages)-1]
		if entry, err := image.one(t, "ENTRYPOINT").exec(); err != nil || entry[0] != "/"+path.Base(pkg) {
			t.Errorf("%s: ENTRYPOINT is %v (%v), want /%s", name, entry, err, path.Base(pkg))
		}
	}
	for pkg := range missing {
		t.Errorf("%s has no Dockerfile", pkg)
	}
}

func TestEveryCopyFindsItsSource(t *testing.T) {
	t.Parallel()
	included := contextFilter(t)
	for name, stages := range dockerfiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range stages {
				for _, c := range s.all("COPY") {
					flags, words := c.flags()
					for _, source := range words[:len(words)-1] {
						if from, ok := flags["from"]; ok {
							index := slices.IndexFunc(stages, func(s stage) bool { return s.name == from })
							if index < 0 {
								t.Errorf("COPY %s: no stage of that name", c.args)
							} else if !slices.ContainsFunc(stages[index].all("RUN"), func(run instruction) bool {
								return slices.Contains(strings.Fields(run.args), source)
							}) {
								t.Errorf("COPY %s: no RUN of stage %s makes %s", c.args, from, source)
							}
							continue
						}
						if _, err := os.Stat(filepath.Join(root, source)); err != nil {
							t.Errorf("COPY %s: %v", c.args, err)
						} else if source != "." && !included(source) {
							t.Errorf("COPY %s: .dockerignore keeps %s out", c.args, source)
						}
					}
				}
			}
		})
	}
}

// contextFilter returns whether .dockerignore lets a path into the build. It
// knows only the form that ours has: nothing, except whole files and folders.
func contextFilter(t *testing.T) func(source string) bool {
	t.Helper()
	var allowed []string
	lines := strings.Split(read(t, root+"/.dockerignore"), "\n")
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "!"); ok {
			allowed = append(allowed, name)
		}
	}
	if !slices.Contains(lines, "*") || len(allowed) == 0 {
		t.Fatal(".dockerignore must exclude everything and name what is allowed")
	}
	return func(source string) bool {
		return slices.ContainsFunc(allowed, func(a string) bool {
			return source == a || strings.HasPrefix(source, a+"/")
		})
	}
}

func TestBuildContextHasEveryFolderOfCode(t *testing.T) {
	t.Parallel()
	included := contextFilter(t)
	files, err := filepath.Glob(root + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		rel, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Dir(rel)
		if folder == "e2e" || folder == "test" || folder == "bench" || folder == "deploy" || strings.HasPrefix(folder, ".") {
			continue // never part of a binary
		}
		if path.Ext(rel) == ".go" && !strings.HasSuffix(rel, "_test.go") && !included(rel) {
			t.Errorf(".dockerignore keeps %s out of the build", rel)
		}
	}
}

func TestServersUnderstandTheEnvironmentTheyGet(t *testing.T) {
	t.Parallel()
	settings := readSettings(t)
	for name, load := range map[string]func(environ []string) error{
		"backend": func(environ []string) error {
			cfg, err := backend.LoadConfig("", environ)
			return errors.Join(err, cfg.Validate())
		},
		"gateway": func(environ []string) error {
			cfg, err := gateway.LoadConfig("", environ)
			return errors.Join(err, cfg.Validate())
		},
	} {
		stages := dockerfiles(t)[name]
		environment := stages[len(stages)-1].environment()
		for key, value := range compose(t).Services[name].Environment {
			environment[key] = variable.ReplaceAllStringFunc(value, func(use string) string {
				return settings[variable.FindStringSubmatch(use)[1]]
			})
		}
		var environ []string
		for key, value := range environment {
			environ = append(environ, key+"="+value)
		}
		if err := load(environ); err != nil {
			t.Errorf("%s, with the settings of .env.example: %v", name, err)
		}
	}
}

// readSettings returns what .env.example sets.
func readSettings(t *testing.T) map[string]string {
	t.Helper()
	settings := make(map[string]string)
	for line := range strings.Lines(read(t, root+"/.env.example")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if _, twice := settings[name]; twice {
			t.Errorf(".env.example sets %s twice", name)
		}
		settings[name] = value
	}
	return settings
}

// Strict on purpose: a key of another meaning or a misspelt one is an error.
type composeFile struct {
	Name     string              `yaml:"name"`
	Hardened service             `yaml:"x-hardened"`
	Services map[string]service  `yaml:"services"`
	Volumes  map[string]struct{} `yaml:"volumes"`
}

type service struct {
	Build *struct {
		Context    string            `yaml:"context"`
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	CapDrop     []string          `yaml:"cap_drop"`
	Environment map[string]string `yaml:"environment"`
	HealthCheck *struct {
		Test     []string `yaml:"test"`
		Interval string   `yaml:"interval"`
		Timeout  string   `yaml:"timeout"`
		Retries  int      `yaml:"retries"`
	} `yaml:"healthcheck"`
	Image   string `yaml:"image"`
	Logging *struct {
		Driver  string            `yaml:"driver"`
		Options map[string]string `yaml:"options"`
	} `yaml:"logging"`
	Ports           []string `yaml:"ports"`
	Profiles        []string `yaml:"profiles"`
	ReadOnly        bool     `yaml:"read_only"`
	Restart         string   `yaml:"restart"`
	SecurityOpt     []string `yaml:"security_opt"`
	ShmSize         string   `yaml:"shm_size"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
	Tmpfs           []string `yaml:"tmpfs"`
	Volumes         []string `yaml:"volumes"`
}

func compose(t *testing.T) composeFile {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, root+"/docker-compose.yml")))
	decoder.KnownFields(true)
	var file composeFile
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if err := decoder.Decode(&file); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one document (%v)", err)
	}
	return file
}

func TestComposeNamesWhatExists(t *testing.T) {
	t.Parallel()
	file := compose(t)
	images := dockerfiles(t)
	usedVolumes := make(map[string]bool)
	for name, s := range file.Services {
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(variable.ReplaceAllString(volume, "."), ":")
			if strings.HasPrefix(source, ".") {
				continue // a folder of the host
			}
			usedVolumes[source] = true
			if _, ok := file.Volumes[source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
		if s.Build == nil {
			if !pinned.MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
				t.Errorf("%s: image %s has no fixed tag", name, s.Image)
			}
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not hardened", name)
		}
		stages, ok := images[strings.TrimPrefix(s.Build.Dockerfile, "deploy/docker/Dockerfile.")]
		if !ok || s.Build.Context != "." {
			t.Errorf("%s: no Dockerfile %s", name, s.Build.Dockerfile)
			continue
		}
		image := stages[len(stages)-1]
		exposed := strings.Fields(image.one(t, "EXPOSE").args)
		for _, port := range s.Ports {
			if inside := port[strings.LastIndex(port, ":")+1:]; !slices.Contains(exposed, inside) {
				t.Errorf("%s: port %s is not one of the image's: %v", name, inside, exposed)
			}
		}
		data := image.one(t, "VOLUME").args
		if !slices.ContainsFunc(s.Volumes, func(v string) bool { return strings.HasSuffix(v, ":"+data) }) {
			t.Errorf("%s: nothing is mounted at %s", name, data)
		}
		for arg := range s.Build.Args {
			if !slices.ContainsFunc(stages[0].all("ARG"), func(i instruction) bool { return strings.HasPrefix(i.args, arg+"=") }) {
				t.Errorf("%s: the Dockerfile has no ARG %s", name, arg)
			}
		}
	}
	for volume := range file.Volumes {
		if !usedVolumes[volume] {
			t.Errorf("volume %s is not used", volume)
		}
	}
}

func TestImagesListenWhereTheySay(t *testing.T) {
	t.Parallel()
	address := regexp.MustCompile(`:(\d+)$`)
	for name, stages := range dockerfiles(t) {
		image := stages[len(stages)-1]
		var listens []string
		for key, value := range image.environment() {
			if match := address.FindStringSubmatch(value); match != nil && strings.HasSuffix(key, "_LISTEN") {
				listens = append(listens, match[1])
			}
		}
		words, err := image.one(t, "CMD").exec()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if match := address.FindStringSubmatch(word); match != nil && !strings.HasPrefix(word, "127.") {
				listens = append(listens, match[1])
			}
		}
		var exposed []string
		for _, expose := range image.all("EXPOSE") {
			exposed = append(exposed, strings.Fields(expose.args)...)
		}
		slices.Sort(listens)
		slices.Sort(exposed)
		if !slices.Equal(listens, exposed) {
			t.Errorf("%s listens on %v and exposes %v", name, listens, exposed)
		}
	}
}

var variable = regexp.MustCompile(`\$\{([A-Z0-9_]+)(:[?-][^}]*)?\}`)

func TestComposeAndItsExampleSettingsAgree(t *testing.T) {
	t.Parallel()
	defined := readSettings(t)
	text := read(t, root+"/docker-compose.yml")
	used := make(map[string]bool)
	for _, match := range variable.FindAllStringSubmatch(text, -1) {
		used[match[1]] = true
		if _, ok := defined[match[1]]; !ok {
			t.Errorf("%s is not in .env.example", match[1])
		}
	}
	for name := range defined {
		if !used[name] {
			t.Errorf("%s is in .env.example and not in docker-compose.yml", name)
		}
	}
	if rest := variable.ReplaceAllString(text, ""); strings.Contains(rest, "$") {
		t.Error("docker-compose.yml has a variable that is not written ${NAME}, ${NAME:-default} or ${NAME:?message}")
	}
}
