package configfile_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/httvps/httvps/internal/configfile"
)

const prefix = "HTTVPS_THING_"

type config struct {
	Listen  string              `yaml:"listen" env:"LISTEN"`
	Port    uint16              `yaml:"port" env:"PORT"`
	Limit   int                 `yaml:"limit" env:"LIMIT"`
	Share   float64             `yaml:"share" env:"SHARE"`
	Public  bool                `yaml:"public" env:"PUBLIC"`
	Drain   configfile.Duration `yaml:"drain,omitempty" env:"DRAIN"`
	Allow   []netip.Prefix      `yaml:"allow" env:"ALLOW"`
	Names   []string            `yaml:"names" env:"NAMES"`
	Numbers []int               `yaml:"numbers" env:"NUMBERS"`
	Labels  map[string]string   `yaml:"labels" env:"LABELS"`
	TLS     struct {
		CertFile string `yaml:"cert_file" env:"CERT_FILE"`
		Deep     deep   `yaml:"deep" envPrefix:"DEEP_"`
	} `yaml:"tls" envPrefix:"TLS_"`
	Routes []route      `yaml:"routes"`
	Log    *slog.Logger `yaml:"-"`
	Secret string       // not configurable
}

type deep struct {
	Level int `yaml:"level" env:"LEVEL"`
}

type route struct {
	Name  string              `yaml:"name"`
	Delay configfile.Duration `yaml:"delay"`
}

func defaults() config {
	return config{Listen: ":443", Limit: 7, Drain: configfile.Duration(time.Minute), Names: []string{"default"}}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "thing.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func diff(want, got config) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, slog.Logger{}))
}

func TestAbsentSettingsKeepTheirDefaults(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"no file":                "",
		"an empty file":          file(t, ""),
		"only comments":          file(t, "# nothing yet\n---\n# really\n"),
		"keys without values":    file(t, "listen:\nlimit: ~\ndrain: null\nnames:\ntls:\n"),
		"a section without keys": file(t, "tls: {}\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := defaults()
			environ := []string{"PATH=/bin", prefix + "LISTEN=", prefix + "LIMIT=", "HTTVPS_OTHER_LISTEN=x"}
			if err := configfile.Load(path, prefix, &got, environ); err != nil {
				t.Fatal(err)
			}
			if diff := diff(defaults(), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	t.Parallel()
	fromFile := defaults()
	err := configfile.Load(file(t, `
listen: "[::1]:8443"
port: 65535
limit: -3
share: 0.5
public: true
drain: 1h30m
allow: [10.0.0.0/8, "fd00::/8"]
names:
  - a
  - b
numbers: &numbers [1, 2]
labels: {region: local}
tls:
  cert_file: /etc/cert.pem
  deep:
    level: 9
routes:
  - name: first
    delay: 5ms
  - name: second
`), prefix, &fromFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Listen: "[::1]:8443", Port: 65535, Limit: -3, Share: 0.5, Public: true,
		Drain:   configfile.Duration(90 * time.Minute),
		Allow:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Names:   []string{"a", "b"},
		Numbers: []int{1, 2},
		Labels:  map[string]string{"region": "local"},
		Routes:  []route{{Name: "first", Delay: configfile.Duration(5 * time.Millisecond)}, {Name: "second"}},
	}
	want.TLS.CertFile = "/etc/cert.pem"
	want.TLS.Deep.Level = 9
	if diff := diff(want, fromFile); diff != "" {
		t.Errorf("file: %s", diff)
	}

	fromEnvironment := defaults()
	err = configfile.Load("", prefix, &fromEnvironment, []string{
		prefix + "LISTEN=[::1]:8443", prefix + "PORT=65535", prefix + "LIMIT=-3", prefix + "SHARE=0.5", prefix + "PUBLIC=true",
		prefix + "DRAIN=1h30m", prefix + "ALLOW=10.0.0.0/8,fd00::/8", prefix + "NAMES=a,b", prefix + "NUMBERS=1,2",
		prefix + "LABELS=region:local", prefix + "TLS_CERT_FILE=/etc/cert.pem", prefix + "TLS_DEEP_LEVEL=9",
	})
	if err != nil {
		t.Fatal(err)
	}
	want.Routes = nil
	if diff := diff(want, fromEnvironment); diff != "" {
		t.Errorf("environment: %s", diff)
	}
}

func TestEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	got := defaults()
	path := file(t, "listen: file\nlimit: 1\nnames: [x, y]\ntls: {cert_file: file, deep: {level: 1}}\n")
	environ := []string{prefix + "LISTEN=env", prefix + "NAMES=z", prefix + "TLS_DEEP_LEVEL=2"}
	if err := configfile.Load(path, prefix, &got, environ); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Listen, want.Limit, want.Names = "env", 1, []string{"z"}
	want.TLS.CertFile, want.TLS.Deep.Level = "file", 2
	if diff := diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMistakesNameTheirPlace(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		yaml    string
		environ []string
		want    []string // FILE stands for the path
	}{
		"unknown key":               {yaml: "listen: x\nlisten_on: y\n", want: []string{"FILE:2: listen_on: unknown key"}},
		"unknown nested key":        {yaml: "tls:\n  deep:\n    lvl: 1\n", want: []string{"FILE:3: tls.deep.lvl: unknown key"}},
		"unknown key in a list":     {yaml: "routes:\n  - name: a\n  - title: b\n", want: []string{"FILE:3: routes[1].title: unknown key"}},
		"a key in other case":       {yaml: "Listen: x\n", want: []string{"FILE:1: Listen: unknown key"}},
		"a field that is no key":    {yaml: "secret: x\nlog: y\n", want: []string{"FILE:1: secret: unknown key", "FILE:2: log: unknown key"}},
		"a merged mapping":          {yaml: "tls: &a {cert_file: x}\n<<: *a\n", want: []string{"FILE:2: <<: unknown key"}},
		"a key given twice":         {yaml: "limit: 1\nlisten: x\nlimit: 2\n", want: []string{"FILE:3: limit: given twice, first on line 1"}},
		"a list for the file":       {yaml: "- a\n", want: []string{"FILE:1: want keys with values"}},
		"text for the file":         {yaml: "hello\n", want: []string{"FILE:1: want keys with values"}},
		"text for a section":        {yaml: "tls: hello\n", want: []string{"FILE:1: tls: want keys with values"}},
		"a list for text":           {yaml: "listen: [a]\n", want: []string{"FILE:1: listen: want text"}},
		"text for a list":           {yaml: "names: a\n", want: []string{"FILE:1: names: want a list"}},
		"text for a mapping":        {yaml: "labels: a\n", want: []string{"FILE:1: labels: want names with values"}},
		"text for a number":         {yaml: "limit: many\n", want: []string{"FILE:1: limit: want a whole number of at most 64 bits"}},
		"a number out of range":     {yaml: "port: 65536\n", want: []string{"FILE:1: port: want a whole number of at most 16 bits, not negative"}},
		"text for a truth value":    {yaml: "public: perhaps\n", want: []string{"FILE:1: public: want true or false"}},
		"text for a fraction":       {yaml: "share: half\n", want: []string{"FILE:1: share: want a number"}},
		"a wrong item":              {yaml: "numbers:\n  - 1\n  - x\n", want: []string{"FILE:3: numbers[1]: want a whole number of at most 64 bits"}},
		"a duration without a unit": {yaml: "drain: 30\n", want: []string{`FILE:1: drain: want a duration with its unit, such as "30s" or "1h30m"`}},
		"a list for a duration":     {yaml: "drain: [30s]\n", want: []string{"FILE:1: drain: want a single value"}},
		"what a type itself refuses": {
			yaml: "allow:\n  - 10.0.0.0\n", want: []string{`FILE:2: allow[0]: "10.0.0.0" is not address/length: no '/'`},
		},
		"no YAML":               {yaml: "listen: [\n", want: []string{"FILE: line 1: did not find expected node content"}},
		"two documents":         {yaml: "listen: a\n---\nlisten: b\n", want: []string{"FILE: holds more than one YAML document"}},
		"a file without bounds": {yaml: strings.Repeat("# 345678\n", configfile.MaxSize/8), want: []string{"FILE: larger than 1048576 bytes"}},
		"unknown variable":      {environ: []string{prefix + "LISTN=x"}, want: []string{prefix + "LISTN: unknown environment variable"}},
		"the prefix alone":      {environ: []string{prefix + "=x"}, want: []string{prefix + ": unknown environment variable"}},
		"a list of structs":     {environ: []string{prefix + "ROUTES_0_NAME=x"}, want: []string{prefix + "ROUTES_0_NAME: unknown environment variable"}},
		"variable, number":      {environ: []string{prefix + "LIMIT=many"}, want: []string{prefix + "LIMIT: want a whole number of at most 64 bits"}},
		"variable, duration":    {environ: []string{prefix + "DRAIN=30"}, want: []string{prefix + `DRAIN: want a duration with its unit, such as "30s" or "1h30m"`}},
		"variable, nested":      {environ: []string{prefix + "TLS_DEEP_LEVEL=x"}, want: []string{prefix + "TLS_DEEP_LEVEL: want a whole number of at most 64 bits"}},
		"variable, list item":   {environ: []string{prefix + "NUMBERS=1,x"}, want: []string{prefix + "NUMBERS: want a whole number of at most 64 bits"}},
		"variable, mapping":     {environ: []string{prefix + "LABELS=a"}, want: []string{prefix + "LABELS: want names with values"}},
		"variable, own type":    {environ: []string{prefix + "ALLOW=10.0.0.0"}, want: []string{prefix + `ALLOW: "10.0.0.0" is not address/length: no '/'`}},
		"everything at once": {
			yaml:    "nope: 1\nlimit: x\ndrain: 5\ntls:\n  nope: 1\n",
			environ: []string{prefix + "PORT=x", prefix + "NOPE=1"},
			want: []string{
				"FILE:1: nope: unknown key",
				"FILE:2: limit: want a whole number of at most 64 bits",
				`FILE:3: drain: want a duration with its unit, such as "30s" or "1h30m"`,
				"FILE:5: tls.nope: unknown key",
				prefix + "NOPE: unknown environment variable",
				prefix + "PORT: want a whole number of at most 16 bits, not negative",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, tc.yaml)
			got := defaults()
			err := configfile.Load(path, prefix, &got, tc.environ)
			if err == nil {
				t.Fatal("Load succeeded")
			}
			if diff := cmp.Diff(tc.want, strings.Split(strings.ReplaceAll(err.Error(), path, "FILE"), "\n")); diff != "" {
				t.Error(diff)
			}
			if _, ok := errors.AsType[*configfile.SettingError](err); !ok {
				t.Errorf("error is a %T, want *SettingError in it", err)
			}
		})
	}
}

func TestMistakesDoNotRepeatValues(t *testing.T) {
	t.Parallel()
	const secret = "hvt1-planted"
	path := file(t, "limit: "+secret+"\npublic: "+secret+"\ndrain: "+secret+"\nnames: "+secret+"\nlisten: {a: "+secret+"}\ntls: "+secret+"\nunknown: "+secret+"\n")
	var environ []string
	for _, name := range []string{"PORT", "LIMIT", "SHARE", "PUBLIC", "DRAIN", "NUMBERS", "UNKNOWN"} {
		environ = append(environ, prefix+name+"="+secret)
	}
	got := defaults()
	err := configfile.Load(path, prefix, &got, environ)
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("Load = %v", err)
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 14 {
		t.Errorf("%d mistakes reported, want 14:\n%v", lines, err)
	}
}

func TestKubernetesServiceLinksAreNotSettings(t *testing.T) {
	t.Parallel()
	type without struct { // has no field named PORT
		Listen string `yaml:"listen" env:"LISTEN"`
	}
	var got without
	err := configfile.Load("", "HTTVPS_GATEWAY_", &got, []string{
		"HTTVPS_GATEWAY_SERVICE_HOST=10.0.0.7",
		"HTTVPS_GATEWAY_SERVICE_PORT=443",
		"HTTVPS_GATEWAY_SERVICE_PORT_HTTPS=443",
		"HTTVPS_GATEWAY_PORT=tcp://10.0.0.7:443",
		"HTTVPS_GATEWAY_PORT_443_TCP=tcp://10.0.0.7:443",
		"HTTVPS_GATEWAY_PORT_443_TCP_PROTO=tcp",
		"HTTVPS_GATEWAY_PORT_443_TCP_PORT=443",
		"HTTVPS_GATEWAY_PORT_443_TCP_ADDR=10.0.0.7",
		"HTTVPS_GATEWAY_ADMIN_SERVICE_HOST=10.0.0.8",
		"HTTVPS_GATEWAY_ADMIN_PORT=tcp://10.0.0.8:9101",
	})
	if err != nil {
		t.Error(err)
	}
	if err := configfile.Load("", "HTTVPS_GATEWAY_", &got, []string{"HTTVPS_GATEWAY_PORT=443"}); err == nil {
		t.Error("a PORT that a person wrote was ignored")
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "absent.yaml")
	got := defaults()
	err := configfile.Load(path, prefix, &got, nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load = %v", err)
	}
	if err := configfile.Load(t.TempDir(), prefix, &got, nil); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestTargetMustBeAStruct(t *testing.T) {
	t.Parallel()
	for _, into := range []any{config{}, (*config)(nil), nil, new(int)} {
		if err := configfile.Load("", prefix, into, nil); err == nil {
			t.Errorf("Load into %T succeeded", into)
		}
	}
}

func TestDurationSurvivesItsText(t *testing.T) {
	t.Parallel()
	type wrapper struct {
		D configfile.Duration `yaml:"d"`
	}
	for _, d := range []time.Duration{0, time.Millisecond, 90 * time.Minute, -time.Second} {
		text, err := yaml.Marshal(wrapper{configfile.Duration(d)})
		if err != nil {
			t.Fatal(err)
		}
		var back wrapper
		if err := yaml.Unmarshal(text, &back); err != nil || back.D.Std() != d {
			t.Errorf("%s: %v, %v", text, back.D, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("listen: a\ntls: {cert_file: b}\nroutes: [{name: c}]\n", "LISTEN=x")
	f.Add("a: &a [*a]\n", "=")
	f.Add("tls: &x\n  deep: *x\n", "LABELS=a:b,c")
	f.Add("names: [~, {}, []]\nallow: [~]\n", "ALLOW=,")
	f.Fuzz(func(t *testing.T, text, variable string) {
		path := filepath.Join(t.TempDir(), "fuzz.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := defaults()
		_ = configfile.Load(path, prefix, &got, []string{prefix + variable}) // must return, not panic
	})
}

func TestAFileOfAnotherProgramIsToldAsSuch(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ yaml, want string }{
		"a gateway's":    {"data_dir: /x\nurl: wss://h/t\nupstream: {mode: direct}\n", "FILE:2: url: is a setting of httvps-gateway: this file is for that program"},
		"a backend's":    {"# comment\nlisten: x\npublic_url: https://h\n", "FILE:3: public_url: is a setting of httvps-backend: this file is for that program"},
		"both in one":    {"gateway:\n  listen: x\n", "FILE:1: gateway: is a setting of httvps-server: this file is for that program"},
		"just a mistake": {"listne: x\n", "FILE:1: listne: unknown key"},
	} {
		path := file(t, tc.yaml)
		cfg := defaults()
		err := configfile.Load(path, prefix, &cfg, nil)
		if want := strings.ReplaceAll(tc.want, "FILE", path); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	// A program that has the key itself is given the right file, with a mistake in it.
	var backend struct {
		PublicURL string `yaml:"public_url" env:"PUBLIC_URL"`
	}
	path := file(t, "public_url: https://h\nurl: wss://h/t\n")
	if err := configfile.Load(path, prefix, &backend, nil); err == nil || err.Error() != path+":2: url: unknown key" {
		t.Errorf("Load = %v", err)
	}
}

func TestWhatHasChangedIsNamedWithoutItsValue(t *testing.T) {
	t.Parallel()
	before, after := defaults(), defaults()
	if keys := configfile.Changed(before, after); keys == nil || len(keys) > 0 {
		t.Errorf("Changed = %#v, want an empty list", keys)
	}
	after.Listen, after.Names, after.TLS.Deep.Level, after.Secret = "x", []string{"other"}, 3, "not configurable"
	after.Log = slog.New(slog.DiscardHandler)
	after.Drain = configfile.Duration(time.Second)
	if diff := cmp.Diff([]string{"drain", "listen", "names", "tls.deep.level"}, configfile.Changed(before, after)); diff != "" {
		t.Error(diff)
	}
}
