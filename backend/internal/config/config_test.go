package config

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// valid returns settings that Validate accepts.
func valid() Config {
	c := Default()
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	return c
}

func TestTheDefaultsNeedOnlyACertificate(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Errorf("Validate = %v", err)
	}
	if err := Default().Validate(); err == nil || !strings.Contains(err.Error(), "tls.cert_file") {
		t.Errorf("Validate without a certificate = %v", err)
	}
}

func TestTheFileIsOverriddenByTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := `
listen: 192.0.2.1:8443
admin_listen: 127.0.0.1:9443
service_name: Example
data_dir: /srv/httvps
tls:
  cert_file: c.pem
  key_file: k.pem
gateway_heartbeat: 10s
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, []string{"HTTVPS_BACKEND_LISTEN=192.0.2.2:443", "HTTVPS_BACKEND_DATABASE_PATH=/x.db", "HTTVPS_BACKEND_TLS_KEY_FILE=other.pem", "HOME=/"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "192.0.2.2:443" || c.AdminListen != "127.0.0.1:9443" || c.ServiceName != "Example" || c.DatabasePath() != "/x.db" ||
		!reflect.DeepEqual(c.Certificate, Certificate{CertFile: "c.pem", KeyFile: "other.pem"}) || c.GatewayHeartbeat.Std() != 10*time.Second || c.LogLevel != "info" {
		t.Errorf("Load = %+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate = %v", err)
	}
	c.Database.Path = ""
	if got := c.DatabasePath(); got != "/srv/httvps/backend.db" {
		t.Errorf("DatabasePath = %s", got)
	}
}

func TestMisspeltSettingsAreAllNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("listn: x\ntls:\n  cert: y\ndev: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, []string{"HTTVPS_BACKEND_LISTEM=x"})
	if err == nil {
		t.Fatal("Load took them")
	}
	for _, want := range []string{path + ":1", "listn", "tls.cert", "dev", "HTTVPS_BACKEND_LISTEM"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Load = %v\nwant it to name %s", err, want)
		}
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no port":                     {func(c *Config) { c.Listen = "localhost" }, "listen"},
		"all addresses, no name":      {func(c *Config) { c.Listen = ":443" }, "public_url"},
		"all IPv6 addresses":          {func(c *Config) { c.Listen = "[::]:443" }, "public_url"},
		"an http name":                {func(c *Config) { c.PublicURL = "http://a" }, "public_url"},
		"a name with a path":          {func(c *Config) { c.PublicURL = "https://a/b" }, "public_url"},
		"a name with a slash":         {func(c *Config) { c.PublicURL = "https://a/" }, "public_url"},
		"a name with credentials":     {func(c *Config) { c.PublicURL = "https://u:p@a" }, "public_url"},
		"a name with a fragment":      {func(c *Config) { c.PublicURL = "https://a#" }, "public_url"},
		"admin on all, no name":       {func(c *Config) { c.AdminListen = "0.0.0.0:1" }, "admin_url"},
		"an admin name for nothing":   {func(c *Config) { c.AdminURL = "https://a" }, "admin_url"},
		"no data directory":           {func(c *Config) { c.DataDir = "" }, "data_dir"},
		"no service name":             {func(c *Config) { c.ServiceName = "" }, "service_name"},
		"half a certificate":          {func(c *Config) { c.TLS, c.Certificate.CertFile = nil, "c" }, "tls.cert_file"},
		"too fast a heartbeat":        {func(c *Config) { c.GatewayHeartbeat = 1 }, "gateway_heartbeat"},
		"too slow a heartbeat":        {func(c *Config) { *(*time.Duration)(&c.GatewayHeartbeat) = time.Hour }, "gateway_heartbeat"},
		"a cookie without a name":     {func(c *Config) { c.KnockCookie = "" }, "knock_cookie"},
		"a cookie that breaks a line": {func(c *Config) { c.KnockCookie = "a\r\nb" }, "knock_cookie"},
		"a knock for an hour":         {func(c *Config) { *(*time.Duration)(&c.KnockRotation) = time.Hour }, "knock_rotation"},
		"a knock for ever":            {func(c *Config) { *(*time.Duration)(&c.KnockRotation) = 9000 * time.Hour }, "knock_rotation"},
		"no wrong code at all":        {func(c *Config) { c.RefusalsPerMinute = 0 }, "refusals_per_minute"},
		"no strangers":                {func(c *Config) { c.Limits.Unauthenticated = 0 }, "limits.unauthenticated is"},
		"no strangers of a network":   {func(c *Config) { c.Limits.UnauthenticatedPerPrefix = 0 }, "limits.unauthenticated_per_prefix is"},
		"no replica":                  {func(c *Config) { c.Replicas = 0 }, "replicas is 0"},
		"two on one file":             {func(c *Config) { c.Replicas, c.NATS.URL = 2, "nats://a" }, "replicas is 2, which takes PostgreSQL"},
		"two that hear nothing":       {func(c *Config) { c.Replicas, c.Database.URL = 2, "postgres://u:p@localhost/x" }, "replicas is 2 without nats.url"},
		"a bus without a scheme":      {func(c *Config) { c.NATS.URL = "u:p@a:4222" }, "nats.url"},
		"a bus of another kind":       {func(c *Config) { c.NATS.URL = "http://u:p@a" }, "nats.url does not begin"},
		"a bus without a host":        {func(c *Config) { c.NATS.URL = "nats://u:p@" }, "nats.url names no host"},
		"a bus with a path":           {func(c *Config) { c.NATS.URL = "nats://a,tls://u:p@b/c" }, "nats.url has something"},
		"a level that does not exist": {func(c *Config) { c.LogLevel = "INFO" }, "log_level"},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid()
			tc.spoil(&c)
			err := c.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("Validate = %v, want a complaint about %s", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "u:p") {
				t.Errorf("Validate repeats credentials: %v", err)
			}
		})
	}
}
