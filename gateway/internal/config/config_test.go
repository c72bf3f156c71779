package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

const example = "../../config/example-config.yaml"

var options = cmp.Options{
	cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{}),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(Config{}, "Log", "SetLevel", "OnReady", "Reload", "GetCertificate", "ACME", "Listener", "Version"),
}

func TestTheExampleIsValid(t *testing.T) {
	cfg, err := Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestTheExampleSetsEveryField(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var given map[string]any
	if err := yaml.Unmarshal(text, &given); err != nil {
		t.Fatal(err)
	}
	var missing func(reflect.Type, map[string]any, string)
	missing = func(s reflect.Type, given map[string]any, path string) {
		for field := range s.Fields() {
			name := field.Tag.Get("yaml")
			if name == "-" {
				continue
			}
			if name == "" || field.Tag.Get("env")+field.Tag.Get("envPrefix") == "" {
				t.Errorf("field %s%s lacks a yaml or env tag", path, field.Name)
			}
			value, ok := given[name]
			if !ok {
				t.Errorf("the example does not set %s%s", path, name)
				continue
			}
			if nested, ok := value.(map[string]any); ok {
				missing(field.Type, nested, path+name+".")
			}
		}
	}
	missing(reflect.TypeFor[Config](), given, "")
}

func TestTheExampleShowsTheDefaults(t *testing.T) {
	cfg, err := Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.URL, want.DataDir, want.TLS, want.HTTPListen = cfg.URL, cfg.DataDir, cfg.TLS, cfg.HTTPListen
	want.Upstream.Allow, want.Upstream.Deny = cfg.Upstream.Allow, cfg.Upstream.Deny
	want.Upstream.AllowedNames, want.Upstream.DeniedNames = cfg.Upstream.AllowedNames, cfg.Upstream.DeniedNames
	if diff := cmp.Diff(want, cfg, options); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
}

func TestWhatIsPrintedLoadsBack(t *testing.T) {
	cfg, err := Load(example, []string{"HTTVPS_GATEWAY_LOG_LEVEL=warn", "HTTVPS_GATEWAY_UPSTREAM_ALLOW=127.0.0.0/8,::1/128"})
	if err != nil {
		t.Fatal(err)
	}
	printed, err := yaml.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "printed.yaml")
	if err := os.WriteFile(file, printed, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Load(file, nil)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, printed)
	}
	if diff := cmp.Diff(cfg, again, options); diff != "" {
		t.Error(diff)
	}
}

func TestTheEnvironmentOverridesTheFile(t *testing.T) {
	cfg, err := Load(example, []string{
		"HTTVPS_GATEWAY_LISTEN=127.0.0.1:9443",
		"HTTVPS_GATEWAY_LIMITS_MAX_STREAMS=10",
		"HTTVPS_GATEWAY_TLS_CERT_FILE=/c",
		"HTTVPS_GATEWAY_UPSTREAM_DENIED_PORTS=1,2",
		"HTTVPS_GATEWAY_PADDING_SIZES=300,700",
		"HTTVPS_GATEWAY_FRONTS=wss://a.example/t,wss://b.example/t",
		"HTTVPS_BACKEND_LISTEN=ignored",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{cfg.Listen, cfg.Limits.MaxStreams, cfg.TLS.CertFile, cfg.Upstream.DeniedPorts, cfg.Padding.Sizes, cfg.Fronts}
	want := []any{"127.0.0.1:9443", 10, "/c", []uint16{1, 2}, []int{300, 700}, []string{"wss://a.example/t", "wss://b.example/t"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadTellsEveryUnknownName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("listne: x\nlimits:\n  max_streems: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file, []string{"HTTVPS_GATEWAY_LISTNE=x"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{file + ":1", "listne", "limits.max_streems", "HTTVPS_GATEWAY_LISTNE"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestMistakesInPrefixesAreToldInWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("upstream:\n  allow:\n    - 10.0.0.0\n    - 10.0.0.0/33\n    - ho\"st/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file, []string{"HTTVPS_GATEWAY_UPSTREAM_DENY=fd00::", "HTTVPS_GATEWAY_LISTNE=x"})
	want := file + `:3: upstream.allow[0]: "10.0.0.0" is not address/length: no '/'
` + file + `:4: upstream.allow[1]: "10.0.0.0/33" is not address/length: prefix length out of range
` + file + `:5: upstream.allow[2]: "ho\"st/8" is not address/length: unable to parse IP
HTTVPS_GATEWAY_LISTNE: unknown environment variable
HTTVPS_GATEWAY_UPSTREAM_DENY: "fd00::" is not address/length: no '/'`
	if err == nil || err.Error() != want {
		t.Errorf("Load = %v\nwant %s", err, want)
	}
}

func TestValidateTellsEveryMistakeAtOnce(t *testing.T) {
	err := Config{Listen: "nonsense", Fronts: []string{""}, AdminListen: "127.0.0.1:70000", Upstream: Upstream{Mode: "tor"}}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{
		"listen is", "url: is empty", "fronts[0]: is empty", "data_dir", "tls.cert_file", "admin_listen", "upstream.mode", "limits.sessions",
		"limits.max_streams", "limits.open_burst", "limits.open_rate", "limits.early_window", "limits.session_budget",
		"limits.dials", "limits.idle_timeout", "limits.handshake_timeout", "limits.unauthenticated is",
		"limits.unauthenticated_per_prefix", "padding.messages", "padding.share", "padding.sizes",
	} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("no word about %s in:\n%v", key, err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	valid, err := Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"a tunnel without TLS":            {func(c *Config) { c.URL = "ws://h/p" }, "want wss"},
		"a URL with a query":              {func(c *Config) { c.URL = "wss://h/p?q=1" }, "query"},
		"a URL with a fragment":           {func(c *Config) { c.URL = "wss://h/p#q" }, "fragment"},
		"a URL with a user":               {func(c *Config) { c.URL = "wss://u@h/p" }, "user"},
		"a URL without host":              {func(c *Config) { c.URL = "wss:///p" }, "no host"},
		"a URL with port 0":               {func(c *Config) { c.URL = "wss://h:0/p" }, "port"},
		"a URL that is none":              {func(c *Config) { c.URL = "wss://h\x7f/p" }, "not a URL"},
		"a front without TLS":             {func(c *Config) { c.Fronts = []string{"wss://a/p", "ws://b/p"} }, `fronts[1]: has the scheme "ws", want wss`},
		"a front without host":            {func(c *Config) { c.Fronts = []string{"wss:///p"} }, "fronts[0]: has no host"},
		"a front with a query":            {func(c *Config) { c.Fronts = []string{"wss://a/p?q=1"} }, "fronts[0]: has a user, query"},
		"a front that is the URL":         {func(c *Config) { c.Fronts = []string{c.URL} }, "fronts[0] is the same as url"},
		"that, written in another way":    {func(c *Config) { c.Fronts = []string{"wss://GATEWAY.example.com:443/%74unnel"} }, "fronts[0] is the same as url"},
		"a front twice":                   {func(c *Config) { c.Fronts = []string{"wss://a/p", "wss://b", "wss://B:443/"} }, "fronts[2] is the same as fronts[1]"},
		"too many fronts":                 {func(c *Config) { c.Fronts = manyFronts(9) }, "fronts are 9, want at most 8"},
		"a front that is too long":        {func(c *Config) { c.Fronts = []string{"wss://a/" + strings.Repeat("p", 493)} }, "fronts[0] has 501 bytes, want at most 500"},
		"a front that cannot be told":     {func(c *Config) { c.Fronts = []string{"wss://bücher.example/p"} }, "fronts[0] is not all visible ASCII"},
		"a certificate without its key":   {func(c *Config) { c.TLS = TLS{CertFile: "c"} }, "tls.key_file"},
		"two sites":                       {func(c *Config) { c.Masquerade = Masquerade{Dir: "/x", URL: "https://h"} }, "one site"},
		"a site of another kind":          {func(c *Config) { c.Masquerade.URL = "ftp://h/x" }, "want https or http"},
		"a site without host":             {func(c *Config) { c.Masquerade.URL = "https:///x" }, "no host"},
		"a site with a user":              {func(c *Config) { c.Masquerade.URL = "https://u:p@h" }, "user"},
		"a site with a query":             {func(c *Config) { c.Masquerade.URL = "https://h/?q=1" }, "query"},
		"a site with port 0":              {func(c *Config) { c.Masquerade.URL = "https://h:0" }, "port"},
		"a site that is none":             {func(c *Config) { c.Masquerade.URL = "https://h\x7f" }, "not a URL"},
		"a cookie without a name":         {func(c *Config) { c.Knock.Cookie = "" }, "knock.cookie"},
		"a cookie that breaks a line":     {func(c *Config) { c.Knock.Cookie = "a\r\nb" }, "knock.cookie"},
		"an empty knock key":              {func(c *Config) { c.Knock.Keys = make([]KnockKey, 1) }, "knock.keys[0]"},
		"too many knock keys":             {func(c *Config) { c.Knock.Keys = slices.Repeat([]KnockKey{{Key: knock.Key{1}}}, 9) }, "at most 8"},
		"bits behind a prefix's length":   {func(c *Config) { c.Upstream.Allow = prefixes(t, "10.0.0.1/8") }, "10.0.0.0/8"},
		"a mapped prefix":                 {func(c *Config) { c.Upstream.Deny = prefixes(t, "::ffff:10.0.0.0/104") }, "as IPv4"},
		"an empty prefix":                 {func(c *Config) { c.Upstream.Allow = make([]netip.Prefix, 1) }, "upstream.allow"},
		"port 0":                          {func(c *Config) { c.Upstream.DeniedPorts = []uint16{0} }, "upstream.denied_ports: 0 is not a port"},
		"port 0 alone":                    {func(c *Config) { c.Upstream.AllowedPorts = []uint16{0} }, "upstream.allowed_ports: 0 is not a port"},
		"a name with a star":              {func(c *Config) { c.Upstream.DeniedNames = []string{"*.example.com"} }, `upstream.denied_names: "*.example.com" is no name`},
		"a name that begins with a dot":   {func(c *Config) { c.Upstream.AllowedNames = []string{".example.com"} }, "upstream.allowed_names"},
		"a name that is an address":       {func(c *Config) { c.Upstream.DeniedNames = []string{"127.1"} }, "upstream.denied_names"},
		"an empty name":                   {func(c *Config) { c.Upstream.DeniedNames = []string{""} }, "upstream.denied_names"},
		"too many names":                  {func(c *Config) { c.Upstream.AllowedNames = make([]string, 100_001) }, "upstream.allowed_names are 100001"},
		"no way out":                      {func(c *Config) { c.Upstream.Mode, c.Upstream.Outline.Source = Outline, Keys }, "are both empty"},
		"ways out of two sources":         {func(c *Config) { c.Upstream.Mode, c.Upstream.Outline.KeysFile = Outline, "/x" }, "want source: keys"},
		"ways out of no source":           {func(c *Config) { c.Upstream.Outline.Source = "pool" }, "upstream.outline.source is"},
		"names for others' servers":       {func(c *Config) { c.Upstream.Mode, c.Upstream.Outline.SendNames = Outline, true }, "upstream.outline.send_names"},
		"too many ways out":               {func(c *Config) { c.Upstream.Outline.Keys = make([]OutlineKey, 65) }, "at most 64"},
		"nobody to ask for names":         {func(c *Config) { c.Upstream.Outline.Resolvers = nil }, "upstream.outline.resolvers are 0"},
		"a name server without port":      {func(c *Config) { c.Upstream.Outline.Resolvers = make([]netip.AddrPort, 1) }, "address:port"},
		"a probe without port":            {func(c *Config) { c.Upstream.Outline.Probe = "example.com" }, "upstream.outline.probe"},
		"probes all the time":             {func(c *Config) { c.Upstream.Outline.ProbeInterval = 1 }, "upstream.outline.probe_interval"},
		"memory for nothing":              {func(c *Config) { c.Limits.Memory = 1 << 20 }, "limits.memory"},
		"silence that ends everybody":     {func(c *Config) { c.Limits.Silence = 1 }, "limits.silence"},
		"usage written at every moment":   {func(c *Config) { c.Usage.Interval = 1 }, "usage.interval"},
		"usage never reported":            {func(c *Config) { c.Usage.ReportInterval = 0 }, "usage.report_interval"},
		"a ledger without rows":           {func(c *Config) { c.Usage.MaxRows = 0 }, "usage.max_rows"},
		"less than no UDP":                {func(c *Config) { c.Limits.MaxUDP = -1 }, "limits.max_udp"},
		"padding of nothing":              {func(c *Config) { c.Padding.Messages = 0 }, "padding.messages is 0, want 1 to 64"},
		"padding of everything":           {func(c *Config) { c.Padding.Messages = 65 }, "padding.messages is 65"},
		"padding without sizes":           {func(c *Config) { c.Padding.Sizes = nil }, "padding.enabled: false is for none"},
		"padding to too many sizes":       {func(c *Config) { c.Padding.Sizes = make([]int, 17) }, "padding.sizes are 17, want 1 to 16"},
		"padding to less than a word":     {func(c *Config) { c.Padding.Sizes = []int{63} }, "padding.sizes: 63 is not 64 to 16000 bytes"},
		"padding to more than a record":   {func(c *Config) { c.Padding.Sizes = []int{256, 16001} }, "padding.sizes: 16001 is not"},
		"padding to sizes that descend":   {func(c *Config) { c.Padding.Sizes = []int{512, 256} }, "padding.sizes: 256 comes behind 512"},
		"padding to a size twice":         {func(c *Config) { c.Padding.Sizes = []int{256, 256} }, "padding.sizes: 256 comes behind 256"},
		"a negative spread":               {func(c *Config) { c.Padding.Spread = -1 }, "padding.spread is -1, want 0 to 4096"},
		"padding as no share":             {func(c *Config) { c.Padding.Share = 0 }, "padding.share is 0, want 1 to 100"},
		"more padding than payload":       {func(c *Config) { c.Padding.Share = 101 }, "padding.share is 101"},
		"draining for longer than anyone": {func(c *Config) { c.DrainTimeout *= -1; c.DrainTimeout-- }, "drain_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := valid
			tc.change(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Validate = %v, want %q in it", err, tc.want)
			}
		})
	}
}

const secret = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA"

func TestKnockKeysCanBeReadAndNotPrinted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("knock: {cookie: visit, keys: ["+secret+"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := KnockKey{knock.Key(func() (raw []byte) {
		for i := range 32 {
			raw = append(raw, byte(i+1))
		}
		return raw
	}())}
	for name, load := range map[string]func() (Config, error){
		"from a file":          func() (Config, error) { return Load(file, nil) },
		"from the environment": func() (Config, error) { return Load("", []string{"HTTVPS_GATEWAY_KNOCK_KEYS=" + secret}) },
	} {
		cfg, err := load()
		if err != nil || len(cfg.Knock.Keys) != 1 || cfg.Knock.Keys[0] != want {
			t.Fatalf("%s: %d keys, %v", name, len(cfg.Knock.Keys), err)
		}
		printed, err := yaml.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(printed), fmt.Sprintf("%v %+v %#v %s", cfg.Knock, cfg.Knock, cfg.Knock, cfg.Knock.Keys)} {
			if strings.Contains(text, secret[:8]) || strings.Contains(text, "[1 2 3") || strings.Contains(text, "0x1, 0x2") {
				t.Errorf("%s: printed as %s", name, text)
			}
		}
	}
}

func TestADamagedKnockKeyIsNotRepeated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("knock:\n  keys:\n    - "+secret[:40]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file, []string{"HTTVPS_GATEWAY_KNOCK_KEYS=" + secret + "," + secret[:41]})
	if err == nil || !strings.Contains(err.Error(), file+":3: knock.keys[0]") || !strings.Contains(err.Error(), "HTTVPS_GATEWAY_KNOCK_KEYS") {
		t.Fatalf("Load = %v", err)
	}
	if strings.Contains(err.Error(), secret[:8]) {
		t.Errorf("the message repeats the key: %v", err)
	}
}

const accessKey = "ss://Y2hhY2hhMjAtaWV0Zi1wb2x5MTMwNTp0b3BzZWNyZXQ@192.0.2.1:8388/?outline=1"

func TestAccessKeysCanBeReadAndNotPrinted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# ours\n\n"+accessKey+"#second\n  "+accessKey+"  \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load("", []string{
		"HTTVPS_GATEWAY_UPSTREAM_OUTLINE_KEYS=" + accessKey + "," + accessKey + "#first",
		"HTTVPS_GATEWAY_UPSTREAM_OUTLINE_KEYS_FILE=" + file,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.Upstream.Outline.Load()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.Tag)
		if key.Password != "topsecret" || key.Host != "192.0.2.1" || !key.Outline {
			t.Errorf("%s is another key", key.Tag)
		}
	}
	if want := []string{"server-1", "first", "second", "server-4"}; !slices.Equal(names, want) {
		t.Errorf("the keys are called %q, want %q", names, want)
	}
	printed, err := yaml.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(printed), fmt.Sprintf("%v %+v %#v", cfg.Upstream, cfg.Upstream, cfg.Upstream), fmt.Sprintf("%v %+v %#v", keys, keys, keys)} {
		if strings.Contains(text, "topsecret") || strings.Contains(text, "Y2hhY2hh") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestMistakesInAccessKeysAreToldWithoutThem(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct{ file, want string }{
		"no file":        {filepath.Join(dir, "none"), "keys_file"},
		"an empty one":   {file("empty", "# nothing\n"), "0 access keys"},
		"a damaged key":  {file("damaged", "\n"+accessKey[:30]+"\n"), ":2: the access key is damaged"},
		"one name twice": {file("twice", accessKey+"#a\n"+accessKey+"#a\n"), `"a"`},
		"a huge file":    {file("huge", strings.Repeat("#\n", maxKeysFile)), "larger than"},
		"too many":       {file("many", strings.Repeat(accessKey+"\n", maxOutlineKeys+1)), "want 1 to 64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OutlineServers{KeysFile: tc.file}.Load()
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "Y2hh") {
				t.Errorf("Load = %v, want %q in it", err, tc.want)
			}
		})
	}
	_, err := Load("", []string{"HTTVPS_GATEWAY_UPSTREAM_OUTLINE_KEYS=" + accessKey[:40]})
	if err == nil || strings.Contains(err.Error(), "Y2hh") || !strings.Contains(err.Error(), "OUTLINE_KEYS") {
		t.Errorf("Load = %v", err)
	}
}

func prefixes(t *testing.T, text string) []netip.Prefix {
	t.Helper()
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		t.Fatal(err)
	}
	return []netip.Prefix{prefix}
}

// What a gateway tells in READY when nobody changed it is what the protocol document
// says, part 11.
func TestLimitsAreThoseOfTheProtocolDocument(t *testing.T) {
	l := Default().Limits
	got := wire.Limits{
		MaxStreams: uint64(l.MaxStreams), MaxUDP: uint64(l.MaxUDP), EarlyWindow: uint64(l.EarlyWindow),
		OpenBurst: uint64(l.OpenBurst), OpenRate: uint64(l.OpenRate), Silence: l.Silence.Std(),
	}
	if diff := cmp.Diff(wire.DefaultLimits(), got); diff != "" {
		t.Errorf("limits (-document +gateway):\n%s", diff)
	}
	if got := l.HandshakeTimeout.Std(); got != wire.HelloTimeout {
		t.Errorf("a device has %v for its HELLO, the document says %v", got, wire.HelloTimeout)
	}
	if got := l.Resume.Std(); got != wire.ResumeWindow {
		t.Errorf("a session is kept for %v, the document says %v", got, wire.ResumeWindow)
	}
	if diff := cmp.Diff(wire.DefaultPadding(), *Default().Padding.Policy()); diff != "" {
		t.Errorf("padding (-document +gateway):\n%s", diff)
	}
}

func TestTheCertificateIsFromFilesOrFromAnAuthority(t *testing.T) {
	acme := func(c *Config) { c.TLS = TLS{}; c.TLS.ACME.Enabled = true }
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // empty: valid
	}{
		"an authority":              {acme, ""},
		"both":                      {func(c *Config) { c.TLS.ACME.Enabled = true }, "want one of them"},
		"neither":                   {func(c *Config) { c.TLS = TLS{} }, "tls.acme.enabled"},
		"nothing to prove it by":    {func(c *Config) { acme(c); c.URL = "wss://gw.example.org:8443/x" }, "tls.acme.enabled is true, but nothing can prove"},
		"plain HTTP to prove it by": {func(c *Config) { acme(c); c.URL = "wss://gw.example.org:8443/x"; c.HTTPListen = ":80" }, ""},
		"another port, forwarded": {func(c *Config) {
			acme(c)
			c.URL, c.TLS.ACME.Challenges = "wss://gw.example.org:8443/x", []string{"tls-alpn-01"}
		}, ""},
		"a front that it does not reach": {
			func(c *Config) { acme(c); c.Fronts = []string{"wss://cdn.example.net:8443/x"} },
			"nothing can prove that cdn.example.net is this machine",
		},
		"a front that nobody reaches": {func(c *Config) { acme(c); c.Fronts = []string{"wss://10.0.0.1/x"} }, "10.0.0.1 is not a public address"},
		"a front at another port":     {func(c *Config) { acme(c); c.Fronts = []string{"wss://GW.example.org:8443/x"} }, ""},
		"a front at the right port": {func(c *Config) {
			acme(c)
			c.URL, c.Fronts = "wss://gw.example.org:8443/x", []string{"wss://gw.example.org/x"}
		}, ""},
		"profiles for everybody": {func(c *Config) { c.PprofListen = "0.0.0.0:6060" }, "pprof_listen"},
		"profiles for a network": {func(c *Config) { c.PprofListen = "192.168.1.2:6060" }, "pprof_listen"},
		"profiles for a name":    {func(c *Config) { c.PprofListen = "localhost:6060" }, "pprof_listen"},
		"profiles for this host": {func(c *Config) { c.PprofListen = "[::1]:6060" }, ""},
		"hardly any memory":      {func(c *Config) { c.MemoryLimit = 1 << 20 }, "memory_limit"},
		"HSTS for a lifetime":    {func(c *Config) { c.Masquerade.HSTS = configfile.Duration(1e6 * time.Hour) }, "masquerade.hsts"},
		"plain HTTP at no port":  {func(c *Config) { c.HTTPListen = "here" }, "http_listen"},
	} {
		cfg := Default()
		cfg.URL, cfg.DataDir, cfg.TLS = "wss://gw.example.org/x", "/d", TLS{CertFile: "c", KeyFile: "k"}
		tc.change(&cfg)
		if err := cfg.Validate(); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestACheckLooksAtAllFilesThatAreNamed(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	cfg := Default()
	cfg.URL, cfg.TLS = "wss://gw.example.org/x", TLS{CertFile: absent + ".pem", KeyFile: absent + ".key"}
	cfg.Masquerade.Dir = absent
	cfg.Upstream.Mode, cfg.Upstream.Outline.Source, cfg.Upstream.Outline.KeysFile = Outline, Keys, absent+".keys"
	_, err := cfg.Check()
	for _, want := range []string{"tls.cert_file", absent + ".pem", absent + ".key", "masquerade.dir", "keys_file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word about %s in %v", want, err)
		}
	}
	cfg = Default()
	cfg.TLS.ACME.Enabled, cfg.TLS.ACME.CAFile = true, absent
	if _, err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "tls.acme.ca_file") {
		t.Errorf("Check = %v", err)
	}
	if warnings, err := Default().Check(); err != nil || warnings != nil {
		t.Errorf("Check of the defaults = %q, %v", warnings, err)
	}
}

// Each setting that a running gateway takes over is marked in the example, and no
// other.
func TestWhatCanBeReloadedIsMarkedInTheExample(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	before := Default()
	before.TLS = TLS{CertFile: "a", KeyFile: "b"}
	before.SetLevel = func(slog.Level) {}
	next := before
	vary(reflect.ValueOf(&next).Elem())
	after := before.Reloaded(next)
	want := []string{
		"drain_timeout", "knock.cookie", "knock.keys",
		"limits.early_window", "limits.max_udp", "limits.open_burst", "limits.open_rate", "limits.sessions", "limits.silence",
		"limits.unauthenticated", "limits.unauthenticated_per_prefix",
		"log_level", "masquerade.dir", "masquerade.hsts", "masquerade.url",
		"padding.enabled", "padding.messages", "padding.share", "padding.sizes", "padding.spread", "tls.cert_file", "tls.key_file",
	}
	if diff := cmp.Diff(want, configfile.Changed(before, after)); diff != "" {
		t.Errorf("what is taken over (-want +got):\n%s", diff)
	}
	if n := strings.Count(string(text), "(r)"); n != 13 {
		t.Errorf("the example marks %d places", n)
	}
}

// vary changes every setting.
func vary(v reflect.Value) {
	for field, value := range v.Fields() {
		if field.Tag.Get("yaml") == "-" || field.Tag.Get("yaml") == "" {
			continue
		}
		switch value.Kind() {
		case reflect.Struct:
			vary(value)
		case reflect.String:
			value.SetString(value.String() + "x")
		case reflect.Bool:
			value.SetBool(!value.Bool())
		case reflect.Int, reflect.Int64:
			value.SetInt(value.Int() + 1)
		case reflect.Slice:
			value.Set(reflect.MakeSlice(value.Type(), value.Len()+1, value.Len()+1))
		default:
		}
	}
}

func TestWhatIsWrittenIsShortAndLoadsBack(t *testing.T) {
	cfg := Default()
	cfg.URL, cfg.DataDir, cfg.HTTPListen = WithPath("wss://gw.example.org"), "/d", ":80"
	cfg.TLS.ACME.Enabled = true
	cfg.Upstream.DeniedPorts = []uint16{25}
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := cfg.Write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := heading + "url: " + cfg.URL + "\ndata_dir: /d\ntls:\n  acme:\n    enabled: true\nhttp_listen: :80\nupstream:\n  denied_ports:\n    - 25\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	back, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cfg, back, options); diff != "" {
		t.Error(diff)
	}
	if err := cfg.Write(path); err == nil {
		t.Error("a file that is there is overwritten")
	}
}

func TestATunnelHasAPathThatNobodyGuesses(t *testing.T) {
	for text, same := range map[string]bool{
		"wss://gw.example.org/x": true, "https://gw.example.org": true, "nonsense": true, "wss://gw.example.org": false, "wss://gw.example.org:8443/": false,
	} {
		one, two := WithPath(text), WithPath(text)
		if (one == text) != same || (one == two) != same {
			t.Errorf("WithPath(%s) = %s, %s", text, one, two)
		}
		if _, err := ParseURL(one); !same && (err != nil || len(one) < len(text)+20 || strings.Contains(one[6:], "//")) {
			t.Errorf("WithPath(%s) = %s, %v", text, one, err)
		}
	}
}
