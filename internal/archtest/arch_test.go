// Package archtest holds the map of the repository and fails when the code
// leaves it.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/httvps/httvps/"
)

// imports lists, for every package, the repository packages it imports; a name
// that ends in a slash stands for all below it. A package without a row fails
// the test, and so does a row that allows more than is used: a new arrow is an
// architecture decision, and this table is where it is reviewed.
var imports = map[string][]string{
	// The published SDK is the bottom layer: it imports nothing else of ours.
	"sdk/go/wire":              {},
	"sdk/go/internal/leaktest": {},
	"sdk/go/lazy":              {},
	"sdk/go/padding":           {"sdk/go/wire"},
	"sdk/go/mux":               {"sdk/go/lazy", "sdk/go/padding", "sdk/go/wire"},
	"sdk/go/mux/muxtest":       {"sdk/go/mux", "sdk/go/wire"},
	"sdk/go/carrier":           {"sdk/go/lazy", "sdk/go/mux", "sdk/go/wire"},
	"sdk/go/tlspin":            {},
	"sdk/go/knock":             {},
	"sdk/go/httvps":            {"sdk/go/carrier", "sdk/go/knock", "sdk/go/mux", "sdk/go/padding", "sdk/go/tlspin", "sdk/go/wire"},

	// A service in a process, for the tests of those who use the SDK.
	"sdk/go/httvps/httvpstest": {"sdk/go/carrier", "sdk/go/httvps", "sdk/go/knock", "sdk/go/mux", "sdk/go/tlspin", "sdk/go/wire"},

	// The device's command is the SDK's first and strictest customer.
	"sdk/cli/internal/control":    {"sdk/cli/internal/httpproxy"},
	"sdk/cli/internal/words":      {"sdk/go/httvps"},
	"sdk/cli/internal/credential": {},
	"sdk/cli/internal/direct":     {"sdk/go/httvps"},
	"sdk/cli/internal/forward":    {"sdk/cli/internal/relay"},
	"sdk/cli/internal/home":       {"sdk/go/httvps"},
	"sdk/cli/internal/httpproxy":  {"sdk/cli/internal/credential", "sdk/cli/internal/relay", "sdk/go/httvps"},
	"sdk/cli/internal/picture":    {},
	"sdk/cli/internal/relay":      {"sdk/go/lazy"},
	"sdk/cli/internal/socks":      {"sdk/cli/internal/credential", "sdk/cli/internal/relay", "sdk/go/httvps"},
	"sdk/cli/cmd/httvps":          {"internal/manpage", "sdk/cli/internal/", "sdk/go/httvps"},

	// What backend and gateway agree on, and what all servers share.
	"internal/acme":       {},
	"internal/apidiff":    {},
	"internal/certfile":   {},
	"internal/command":    {},
	"internal/configfile": {},
	"internal/anonym":     {},
	"internal/gate":       {},
	"internal/inproc":     {},
	"internal/devca":      {"sdk/go/tlspin"},
	"internal/egress":     {"internal/publicaddr", "sdk/go/wire"},
	"internal/link":       {"sdk/go/tlspin"},
	"internal/manpage":    {},
	"internal/memlimit":   {},
	"internal/publicaddr": {},
	"internal/redirect":   {"internal/anonym", "internal/gate"},
	"internal/reason":     {"sdk/go/wire"},
	"internal/sslink":     {},
	"internal/ticket":     {},
	"internal/totp":       {},

	// Data plane. Leaves do not see each other; server joins them.
	"gateway/internal/auth":        {"internal/ticket", "sdk/go/wire"},
	"gateway/internal/config":      {"internal/acme", "internal/certfile", "internal/configfile", "internal/egress", "internal/sslink", "sdk/go/knock", "sdk/go/wire"},
	"gateway/internal/ledger":      {},
	"gateway/internal/masquerade":  {"internal/anonym"},
	"gateway/internal/metrics":     {},
	"gateway/internal/nodes":       {"internal/egress", "internal/link", "internal/reason", "internal/ticket", "sdk/go/knock", "sdk/go/tlspin"},
	"gateway/internal/pace":        {},
	"gateway/internal/protocol":    {"gateway/internal/pace", "sdk/go/lazy", "sdk/go/mux", "sdk/go/padding", "sdk/go/wire"},
	"gateway/internal/quota":       {},
	"gateway/internal/sessions":    {"gateway/internal/pace", "gateway/internal/quota", "gateway/internal/upstream", "sdk/go/wire"},
	"gateway/internal/shadowsocks": {"sdk/go/lazy", "sdk/go/wire"},
	"gateway/internal/upstream":    {"gateway/internal/shadowsocks", "internal/egress", "internal/publicaddr", "sdk/go/lazy", "sdk/go/wire"},
	"gateway/internal/server":      {"gateway/internal/", "internal/acme", "internal/anonym", "internal/certfile", "internal/configfile", "internal/gate", "internal/memlimit", "internal/reason", "internal/redirect", "internal/ticket", "sdk/go/carrier", "sdk/go/knock", "sdk/go/mux", "sdk/go/wire"},
	"gateway":                      {"gateway/internal/"},
	"gateway/cmd/httvps-gateway":   {"gateway", "internal/command", "internal/memlimit"},

	// Control plane. Adapters know the domain; the domain knows no adapter.
	"backend/internal/apidocs":         {},
	"backend/internal/backup":          {},
	"backend/internal/config":          {"backend/internal/backup", "backend/internal/seal", "internal/acme", "internal/certfile", "internal/configfile", "internal/publicaddr", "sdk/go/knock"},
	"backend/internal/control":         {"internal/egress", "internal/link", "internal/reason", "internal/sslink", "internal/ticket", "internal/totp", "sdk/go/knock"},
	"backend/internal/events":          {"backend/internal/control"},
	"backend/internal/httpapi":         {"backend/internal/apidocs", "backend/internal/control", "backend/internal/events", "internal/egress", "internal/gate", "internal/reason"},
	"backend/internal/metrics":         {},
	"backend/internal/password":        {"backend/internal/control"},
	"backend/internal/seal":            {},
	"backend/internal/store":           {"backend/internal/control", "internal/egress"},
	"backend/internal/store/storetest": {"backend/internal/control", "internal/egress", "internal/sslink"},
	"backend/internal/webhooks":        {"backend/internal/control", "internal/publicaddr"},
	"backend":                          {"backend/internal/", "internal/acme", "internal/anonym", "internal/certfile", "internal/configfile", "internal/gate", "internal/redirect", "sdk/go/tlspin"},
	"backend/cmd/httvps-backend":       {"backend", "internal/command", "internal/configfile", "internal/memlimit"},

	// The operator's command is a client of the API and knows no server.
	"ctl/cmd/httvpsctl":     {"ctl/internal/cli", "ctl/internal/terminal"},
	"ctl/internal/api":      {"internal/link", "sdk/go/tlspin"},
	"ctl/internal/cli":      {"ctl/internal/", "internal/manpage", "internal/totp", "sdk/go/tlspin"},
	"ctl/internal/desired":  {},
	"ctl/internal/login":    {},
	"ctl/internal/qrcode":   {},
	"ctl/internal/terminal": {},
	"ctl/internal/top":      {},

	// Both servers in one process, over the same API as when they are apart.
	"cmd/httvps-server": {"backend", "gateway", "internal/acme", "internal/command", "internal/configfile", "internal/devca", "internal/inproc", "internal/memlimit"},

	// The demo and the end-to-end tests drive the binaries as a person would.
	"e2e/cmd/demo":        {"e2e/internal/"},
	"e2e/internal/origin": {},
	"e2e/internal/stack":  {},

	// The emulated link and the tool that measures it.
	"test/linkem":                  {},
	"test/linkem/cmd/linkem-check": {"test/linkem"},

	// An authority that speaks ACME, for the tests of those who have certificates made.
	"test/acmetest": {},

	// Shadowsocks servers for the tests of those who speak with them.
	"test/sstest": {"sdk/go/wire"},

	// The benchmarks drive the binaries, too, and compare them with a relay.
	"bench":                      {"bench/internal/", "internal/devca", "sdk/go/httvps", "test/linkem"},
	"bench/internal/blackhole":   {},
	"bench/internal/hostile":     {"sdk/go/carrier", "sdk/go/httvps", "sdk/go/knock", "sdk/go/wire"},
	"bench/internal/load":        {"bench/internal/origin"},
	"bench/internal/origin":      {},
	"bench/internal/process":     {},
	"bench/internal/relay":       {},
	"bench/internal/service":     {"bench/internal/process", "internal/devca", "internal/link"},
	"bench/internal/shadowsocks": {},
	"bench/internal/stats":       {},

	// What the WebSocket layer was chosen by: tests alone, so that no program links
	// what they compare.
	"bench/wslayers": {},
}

// links lists the third-party code that a package links, however deep: itself,
// or what is below it. Neither a gateway nor a command knows SQL.
var links = map[string][]string{
	"sdk/go/wire":              {},
	"sdk/go/internal/leaktest": {},
	"sdk/go/lazy":              {},
	"sdk/go/mux":               {},
	"sdk/go/tlspin":            {},
	"sdk/go/knock":             {},
	"sdk/go/httvps":            {"github.com/gobwas"},
	"sdk/cli/cmd/httvps": {
		"github.com/gobwas", "github.com/spf13/cobra", "github.com/spf13/pflag",
		// QR codes, with what they bring along
		"github.com/makiuchi-d/gozxing", "golang.org/x/text", "golang.org/x/xerrors",
	},
	"ctl/cmd/httvpsctl": {"github.com/google/uuid", "github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml", "golang.org/x/sys", "rsc.io/qr"},
	// A frame brings no configuration and no service of its own.
	"internal/command": {"github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml/v3"},
	"gateway/cmd/httvps-gateway": {
		"github.com/gobwas",
		// configuration and the command line
		"github.com/caarlos0/env/v11", "github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml/v3",
		// the ledger of usage
		"go.etcd.io/bbolt",
		// tokens and ids
		"github.com/golang-jwt/jwt/v5", "github.com/google/uuid",
		// certificates by ACME, with what that brings along (ADR 0016)
		"github.com/caddyserver/certmagic", "github.com/mholt/acmez/v3", "go.uber.org/zap", "go.uber.org/multierr",
		"github.com/caddyserver/zerossl", "github.com/klauspost/cpuid/v2", "github.com/libdns/libdns", "github.com/miekg/dns",
		"github.com/zeebo/blake3", "golang.org/x/net", "golang.org/x/text",
		// Shadowsocks, and DNS through it
		"golang.org/x/crypto",
		// metrics, with what they bring along
		"github.com/prometheus", "github.com/beorn7/perks", "github.com/cespare/xxhash/v2",
		"github.com/munnerz/goautoneg", "golang.org/x/sys", "google.golang.org/protobuf",
	},
}

func TestImportsStayOnTheMap(t *testing.T) {
	unseen := maps.Clone(imports)
	for name, got := range repositoryImports(t) {
		allowed, ok := imports[name]
		if !ok {
			t.Errorf("%s has no row in imports", name)
			continue
		}
		delete(unseen, name)
		for _, entry := range allowed {
			if !slices.ContainsFunc(got, func(imp string) bool {
				dep, ours := strings.CutPrefix(imp, module)
				return ours && covers(dep)(entry)
			}) {
				t.Errorf("%s does not import %s, which its row allows", name, entry)
			}
		}
		for _, imp := range got {
			if dep, ours := strings.CutPrefix(imp, module); ours && !slices.ContainsFunc(allowed, covers(dep)) {
				t.Errorf("%s may not import %s", name, dep)
			}
			if imp == "testing" && !strings.HasSuffix(name, "test") {
				t.Errorf("%s imports testing outside a test", name)
			}
		}
	}
	for name := range unseen {
		t.Errorf("imports has a row for %s, which does not exist", name)
	}
}

func TestPackagesLinkOnlyWhatTheyNeed(t *testing.T) {
	repositoryImports(t) // into the cache key, see there
	for name, allowed := range links {
		deps := linked(t, name)
		if deps == nil {
			continue // and said why
		}
		unused := slices.Clone(allowed)
		for _, dep := range deps {
			if strings.HasPrefix(dep, module) {
				continue // judged by imports
			}
			below := func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") }
			if !slices.ContainsFunc(allowed, below) {
				t.Errorf("%s links %s", name, dep)
			}
			unused = slices.DeleteFunc(unused, below)
		}
		for _, dep := range unused {
			t.Errorf("%s does not link %s, which its row allows", name, dep)
		}
	}
}

// covers returns a function that reports whether a row's entry stands for dep.
func covers(dep string) func(entry string) bool {
	return func(entry string) bool {
		return dep == entry || strings.HasSuffix(entry, "/") && strings.HasPrefix(dep, entry)
	}
}

// linked returns everything outside the standard library that the package links.
func linked(t *testing.T, name string) []string {
	t.Helper()
	const format = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, module+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the binaries are built
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("go list %s: %v\n%s", name, err, stderr.String())
		return nil
	}
	return strings.Fields(string(out))
}

// repositoryImports reads every non-test Go file itself rather than asking
// "go list": files a test opens are part of its cache key, so a cached pass
// cannot outlive a change.
func repositoryImports(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir():
			if name == "node_modules" || name == "testdata" || file != root && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		case name == "go.mod":
			_, err := os.ReadFile(file) // it decides what is linked
			return err
		case path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		found[pkg] = append(found[pkg], nil...)
		for _, spec := range parsed.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
