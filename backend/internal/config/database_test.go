package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	secretURL = "postgres://someone:Passw0rd@db.example.net:5433/vpn?sslmode=verify-full&password=Passw0rd"
	shownURL  = "postgres://(secret)@db.example.net:5433/vpn"
)

func TestTheDatabaseIsAFileUnlessAURLIsGiven(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(secretURL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		environ []string
		path    string
		url     string
	}{
		"nothing said":     {nil, "data/backend.db", ""},
		"a path":           {[]string{"HTTVPS_BACKEND_DATABASE_PATH=/x.db"}, "/x.db", ""},
		"a URL":            {[]string{"HTTVPS_BACKEND_DATABASE_URL=" + secretURL}, "", secretURL},
		"a URL in a file":  {[]string{"HTTVPS_BACKEND_DATABASE_URL_FILE=" + file}, "", secretURL},
		"a file elsewhere": {[]string{"HTTVPS_BACKEND_DATA_DIR=/srv"}, "/srv/backend.db", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Load("", tc.environ)
			if err != nil {
				t.Fatal(err)
			}
			path, url, err := c.Source()
			if err != nil || path != tc.path || url.Reveal() != tc.url || c.DatabasePath() != tc.path {
				t.Errorf("Source = %q, %q, %v", path, url.Reveal(), err)
			}
		})
	}
}

func TestADatabaseURLDoesNotShowItsSecrets(t *testing.T) {
	c := Default()
	c.Database.URL = secretURL
	inYAML, err1 := yaml.Marshal(c)
	inJSON, err2 := json.Marshal(c.Database)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for name, text := range map[string]string{
		"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c), "String": c.Database.URL.String(),
		"%q": fmt.Sprintf("%q", c.Database.URL), "YAML": string(inYAML), "JSON": string(inJSON),
	} {
		if strings.Contains(text, "Passw0rd") || strings.Contains(text, "someone") || !strings.Contains(text, shownURL) {
			t.Errorf("%s shows %s, want %s", name, text, shownURL)
		}
	}
	for url, want := range map[DatabaseURL]string{
		"":                              "",
		"host=x password=Passw0rd":      "(secret)",
		"postgres://u:Passw0rd@[x":      "(secret)",
		"postgres:///vpn?host=/run/pg":  "postgres:///vpn",
		"postgres://localhost:5433/vpn": "postgres://localhost:5433/vpn",
	} {
		if got := url.String(); got != want {
			t.Errorf("%q shows itself as %q, want %q", url.Reveal(), got, want)
		}
	}
}

func TestWrongDatabasesAreNamedWithoutTheirSecrets(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*Database)
		want  string
	}{
		"two of them":                {func(d *Database) { d.Path, d.URL = "x", "postgres://localhost/x" }, "exclude each other"},
		"no URL":                     {func(d *Database) { d.URL = "postgres://u:Passw0rd@[" }, "database.url is not a URL"},
		"a bare password":            {func(d *Database) { d.URL = "Passw0rd" }, "database.url does not begin with postgres://"},
		"another engine":             {func(d *Database) { d.URL = "mysql://u:Passw0rd@h/x" }, "database.url does not begin"},
		"a # in the password":        {func(d *Database) { d.URL = "postgres://u:x#Passw0rd@h/x" }, "database.url"},
		"no database":                {func(d *Database) { d.URL = "postgres://u:Passw0rd@localhost" }, "names no database"},
		"no host":                    {func(d *Database) { d.URL = "postgres:///x" }, "names no host"},
		"TLS left open":              {func(d *Database) { d.URL = "postgres://u:Passw0rd@10.0.0.1/x" }, "sslmode"},
		"TLS left open, a parameter": {func(d *Database) { d.URL = "postgres://u:Passw0rd@localhost/x?host=10.0.0.1" }, "sslmode"},
		"TLS left open, of two":      {func(d *Database) { d.URL = "postgres://u:Passw0rd@localhost:1,db:2/x" }, "sslmode"},
		"no connections":             {func(d *Database) { d.MaxConnections = 0 }, "database.max_connections is 0"},
		"far too many":               {func(d *Database) { d.MaxConnections = 1001 }, "database.max_connections is 1001"},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid()
			tc.spoil(&c.Database)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "Passw0rd") {
				t.Errorf("Validate = %v, want it to say %q", err, tc.want)
			}
		})
	}
	for name, url := range map[string]DatabaseURL{
		"on this machine":       "postgres://u:p@127.0.0.1:5432/x",
		"on this machine, IPv6": "postgres://u:p@[::1]/x",
		"over a socket":         "postgres://u@/x?host=/run/postgresql",
		"TLS":                   "postgresql://u:p@db/x?sslmode=verify-full",
		"no TLS, as was said":   "postgres://u:p@db/x?sslmode=disable",
	} {
		c := valid()
		c.Database.URL = url
		if err := c.Validate(); err != nil {
			t.Errorf("%s: Validate = %v", name, err)
		}
	}
}

func TestAURLFileThatIsOfNoUseIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "text": "Passw0rd", "large": strings.Repeat("x", maxURLFile+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"empty", "text", "large", "missing"} {
		c := valid()
		c.Database.URLFile = filepath.Join(dir, name)
		_, _, err := c.Source()
		if err == nil || !strings.HasPrefix(err.Error(), "database.url_file") || !strings.Contains(err.Error(), c.Database.URLFile) ||
			strings.Contains(err.Error(), "Passw0rd") {
			t.Errorf("%s: Source = %v, want it to name the file and not what is in it", name, err)
		}
	}
}
