//go:build linux

package backend_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/totp"
)

// secrets are what must not appear, by what they are.
type secrets map[string]string

// raw adds a secret of bytes in each way that a program would write it.
func (s secrets) raw(name string, secret []byte) {
	s[name+" as bytes"] = string(secret)
	s[name+" in hexadecimal"] = hex.EncodeToString(secret)
	s[name+" as Go prints it"] = strings.Trim(fmt.Sprintf("%d", secret[:8]), "[]")
	s[name+" in base64"] = strings.TrimRight(base64.StdEncoding.EncodeToString(secret), "=")
	s[name+" in base64url"] = rawURL.EncodeToString(secret)
}

// absent fails the test when a text has one of the secrets.
func (s secrets) absent(t *testing.T, where, text string) {
	t.Helper()
	for name, secret := range s {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("%s has %s", where, name)
		}
	}
}

// startSecretNATS starts a bus that wants an account.
func startSecretNATS(t *testing.T, user, password string) (*server.Server, string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: anyPort, NoSigs: true, NoLog: true, Username: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("NATS does not start")
	}
	return s, "nats://" + url.UserPassword(user, password).String() + "@" + s.Addr().(*net.TCPAddr).String()
}

// buildPresent builds the program as it is now.
func buildPresent(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "httvps-backend")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/httvps-backend")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// The program runs on PostgreSQL and NATS with an account each, as it is shipped and
// with all that it can log; secrets come in at each place where there is one, also
// where they do not belong; everything around it fails once; and then all that it
// has ever shown is searched for them.
func TestPlantedSecretsAppearNowhereOnPostgreSQL(t *testing.T) {
	binary, database := buildPresent(t), storetest.StartServer(t)
	bus, busURL := startSecretNATS(t, "busaccount", "Plant3d.Bus.Passw0rd")
	kek, dir := backend.NewKEK(), dataDir(t)
	planted := secrets{
		"the database's password": database.Password(), "the bus's password": "Plant3d.Bus.Passw0rd", "the key-encryption key": kek,
	}
	environ := []string{
		"HTTVPS_BACKEND_DATABASE_URL=" + database.Database(t), "HTTVPS_BACKEND_NATS_URL=" + busURL, "HTTVPS_BACKEND_REPLICAS=2",
		"HTTVPS_BACKEND_KEK=" + kek, "HTTVPS_BACKEND_LOG_LEVEL=debug", "GOTRACEBACK=all",
	}
	where := store.Config{URL: strings.TrimPrefix(environ[0], "HTTVPS_BACKEND_DATABASE_URL=")}

	s := startRelease(t, binary, dir, environ...)
	shown := make(map[string]string) // what the program has shown, by where
	// The link for the first operator is shown on purpose, in one line, and of no use
	// once that operator is there.
	await(t, func() bool { return strings.Contains(s.log.String(), `"bootstrap":"`) })
	begin, rest, _ := strings.Cut(s.log.String(), `"bootstrap":"`)
	link, _, _ := strings.Cut(rest, `"`)
	if link != s.ready.Bootstrap || strings.Contains(begin, codeOf(t, link)) {
		t.Errorf("the log has another link than the ready line")
	}
	s.ready.Token = s.call(http.MethodPost, s.ready.Admin+"/api/v1/admin/bootstrap", "", map[string]any{
		"code": codeOf(t, link), "name": "me",
	}).want(http.StatusCreated, "").field("token")
	planted["an operator's token"] = strings.Split(s.ready.Token, ".")[1]

	app, password := totp.NewSecret(), "Plant3d.Passw0rd.of.me"
	var set struct {
		RecoveryCodes []string `json:"recovery_codes"`
	}
	s.admin(http.MethodPost, "/sign-in", map[string]any{
		"password": password, "totp": map[string]any{"secret": totp.FormatSecret(app), "code": totp.Code(app, totp.Step(time.Now()))},
	}).want(http.StatusOK, "").into(&set)
	signed := s.call(http.MethodPost, s.ready.Admin+"/api/v1/admin/logins", "", map[string]any{
		"name": "me", "password": password, "code": set.RecoveryCodes[0],
	}).want(http.StatusOK, "")
	colleague := s.admin(http.MethodPost, "/operators", map[string]any{"name": "colleague", "role": "support"}).want(http.StatusCreated, "")
	welcome := s.admin(http.MethodPost, "/operators/"+colleague.field("id")+"/invitation", nil).want(http.StatusOK, "").field("link")
	planted["an operator's password"], planted["a second factor"] = password, totp.FormatSecret(app)
	planted["a recovery code that was used"], planted["one that was not"] = set.RecoveryCodes[0], set.RecoveryCodes[1]
	planted["that, as it is hashed"] = strings.ReplaceAll(set.RecoveryCodes[1], "-", "")
	planted["a login's token"], planted["a known client"] = strings.Split(signed.field("token"), ".")[1], signed.field("client")
	planted["a colleague's token"], planted["an operator's link"] = strings.Split(colleague.field("token"), ".")[1], codeOf(t, welcome)
	planted.raw("a second factor", app)

	const hook = "https://localhost:1/Plant3dHookPath?token=Plant3dHookToken"
	told1 := s.admin(http.MethodPost, "/webhooks", map[string]any{"url": hook}).want(http.StatusCreated, "")
	told2 := s.admin(http.MethodPost, "/webhooks/"+told1.field("id")+"/rotate", map[string]any{}).want(http.StatusOK, "")
	planted["the path of a webhook's URL"], planted["its query"] = "Plant3dHookPath", "Plant3dHookToken"
	planted["a webhook's secret"], planted["another of it"] = told1.field("secret"), told2.field("secret")
	for name, secret := range map[string]string{"a webhook's key": told1.field("secret"), "its next one": told2.field("secret")} {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			t.Fatal(err)
		}
		planted.raw(name, key)
	}
	s.admin(http.MethodPost, "/webhooks/"+told1.field("id")+"/test", nil).want(http.StatusOK, "")
	await(t, func() bool { return strings.Contains(s.log.String(), `"msg":"message to a webhook given up"`) })

	gw := s.newGateway()
	user, _ := s.user("somebody", 10, 10)
	used, unused := codeOf(t, s.invite(user)), codeOf(t, s.invite(user))
	planted["a code that was used"], planted["a code that was not"] = used, unused
	d := device{s: s, key: newKey(t)}
	enrolled := s.tryEnrol(d.key, used).want(http.StatusCreated, "")
	d.id = enrolled.field("device_id")
	var told struct{ Knock struct{ Key string } }
	enrolled.into(&told)
	knock, err := rawURL.DecodeString(told.Knock.Key)
	if err != nil {
		t.Fatal(err)
	}
	planted.raw("the knock key", knock)
	planted.raw("a device's key", d.key.Seed())
	planted.raw("a gateway's key", gw.key.Seed())
	planted.raw("the signing key", signingSeed(t, where, kek))
	access, assertion := d.accessToken(), gw.credential()
	planted["an access token"], planted["an assertion"] = access, assertion
	f := gw.follow("0")
	if got := gw.validate(newSessionID(), d); !got.Allowed {
		t.Fatalf("%+v", got)
	}

	// Where they do not belong.
	planted["an Outline link"] = "ss://Y2hhY2hhMjA6UGxhbnRlZA@outline.example.net:8388"
	planted["an Outline API URL"] = "outline.example.net:4433/PlantedApiPrefix"
	planted["what is no credential"] = "Plant3dCredential"
	answers := &strings.Builder{}
	ask := func(method, address, credential string, body any, header ...string) {
		t.Helper()
		got := s.call(method, address, credential, body, header...)
		if got.status >= http.StatusBadRequest {
			fmt.Fprintf(answers, "%s %v\n", got.text, got.header)
		}
	}
	for _, secret := range []string{
		used, unused, s.ready.Token, access, assertion, told.Knock.Key, kek, database.Password(), planted["an Outline link"],
		"https://" + planted["an Outline API URL"], planted["what is no credential"],
		password, totp.FormatSecret(app), set.RecoveryCodes[1], signed.field("client"), welcome, told2.field("secret"), hook,
	} {
		api, admin := s.ready.API+"/api/v1/", s.ready.Admin+"/api/v1/admin/"
		escaped := url.PathEscape(secret)
		for _, credential := range []string{"", secret, s.ready.Token} {
			ask(http.MethodGet, api+escaped, credential, nil)
			ask(http.MethodGet, admin+"users/"+escaped, credential, nil)
			ask(http.MethodGet, admin+"users?"+url.QueryEscape(secret)+"="+escaped, credential, nil)
			ask(http.MethodGet, admin+"users?cursor="+url.QueryEscape(secret), credential, nil)
			ask(http.MethodPost, admin+"users", credential, map[string]any{secret: secret})
			ask(http.MethodPost, admin+"users", credential, map[string]any{"name": "\x01" + secret, "note": []string{secret}})
			ask(http.MethodPost, admin+"users", credential, "{"+secret)
			ask(http.MethodPost, admin+"subscriptions", credential, map[string]any{"user_id": secret, "plan_id": secret, "starts_at": secret})
			ask(http.MethodPost, admin+"gateways", credential, map[string]any{"name": secret, "region": secret, "url": secret})
			ask(http.MethodPost, admin+"plans", credential, map[string]any{"name": secret, "max_devices": secret}, "Idempotency-Key", secret)
			ask(http.MethodPost, admin+"webhooks", credential, map[string]any{"url": "ftp://" + secret, "events": []string{secret}, "description": "\x01" + secret})
			ask(http.MethodPost, admin+"webhooks/"+escaped+"/rotate", credential, map[string]any{"overlap_seconds": secret})
			ask(http.MethodPost, admin+"bootstrap", credential, map[string]any{"code": secret, "name": secret + "\x00"})
			ask(http.MethodPost, admin+"logins", credential, map[string]any{"name": secret, "password": secret, "code": secret, "client": secret})
			ask(http.MethodPost, admin+"logins", credential, map[string]any{"name": "me", "password": secret, "code": secret, secret: secret})
			ask(http.MethodPost, admin+"sign-in", credential, map[string]any{
				"password": secret, "current": map[string]any{"password": secret, "code": secret}, "totp": map[string]any{"secret": secret, "code": secret},
			})
			ask(http.MethodPost, admin+"sign-in/accept", credential, map[string]any{
				"code": secret, "password": secret, "totp": map[string]any{"secret": secret, "code": secret},
			}, "Audit-Reason", secret)
			ask(http.MethodGet, admin+"logins?operator_id="+url.QueryEscape(secret), credential, nil, "Cookie", "__Host-httvps="+secret)
			ask(http.MethodPost, api+"auth/validate-device", credential, map[string]any{"session_id": secret, "device_id": secret})
			ask(http.MethodPost, api+"gateway/heartbeat", assertion, map[string]any{"boot_id": secret, "url": secret, "version": secret + "\x01"})
			ask(http.MethodPost, api+"usage/report", assertion, map[string]any{"reports": []any{secret}})
			ask(http.MethodPost, api+"auth/token", credential, map[string]any{"device_id": secret, "nonce": secret, "signature": secret})
		}
	}
	for _, code := range []string{used, "PLANTEDPLANTEDPLANTEDPLANT", secretless(unused)} {
		planted["a code that was guessed"] = "PLANTEDPLANTEDPLANTEDPLANT"
		fmt.Fprintf(answers, "%s\n", s.tryEnrol(newKey(t), code).text)
	}

	shown["the audit log"] = string(s.admin(http.MethodGet, "/audit?limit=500", nil).want(http.StatusOK, "").text)
	shown["a webhook, to a colleague"] = string(s.call(http.MethodGet, s.ready.Admin+"/api/v1/admin/webhooks", colleague.field("token"), nil).want(http.StatusOK, "").text)
	shown["its messages"] = string(s.admin(http.MethodGet, "/webhooks/"+told1.field("id")+"/deliveries", nil).want(http.StatusOK, "").text)
	shown["the metrics"] = string(s.probe("/metrics").want(http.StatusOK, "").text)
	// Everything around it fails.
	bus.Shutdown()
	database.Stop(t)
	for _, answer := range []func() reply{
		d.tryToken, func() reply { return s.admin(http.MethodGet, "/users", nil) }, func() reply { return s.tryEnrol(newKey(t), unused) },
	} {
		got := answer()
		fmt.Fprintf(answers, "%s %v\n", got.text, got.header)
	}
	shown["readyz"] = string(s.probe("/readyz").text)
	database.Start(t)
	await(t, func() bool { return s.probe("/readyz").status == http.StatusOK })
	s.admin(http.MethodPost, "/devices/"+d.id+"/revoke", struct{}{}).want(http.StatusOK, "")

	pid := s.pid
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	shown["the process's arguments"] = string(line)
	for _, args := range [][]string{
		{"config", "print"}, {"config", "check"}, {"migrate", "status"}, {"kek", "status"}, {"kek", "add"}, {"knock", "rotate"}, {"signing", "rotate"},
	} {
		shown[strings.Join(args, " ")] = runProgram(t, binary, dir, environ, args...)
	}
	broken := append([]string{"HTTVPS_BACKEND_DATABASE_URL=" + where.URL + "x%"}, environ[1:]...)
	shown["config check of what is broken"] = runProgram(t, binary, dir, broken, "config", "check")

	f.stop()
	// And it shows all that it is doing.
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	s.ended()
	log := s.log.String()
	for _, want := range []string{`"msg":"request"`, `"msg":"request failed"`, "SIGQUIT", "goroutine "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: the search proves nothing", want)
		}
	}
	shown["the log"], shown["an answer that says what is wrong"] = log, answers.String()
	for where, text := range shown {
		if text == "" {
			t.Errorf("%s: there is nothing", where)
		}
		planted.absent(t, where, text)
	}
	t.Logf("%d secrets, %d bytes of log, %d of answers", len(planted), len(log), answers.Len())
}

// secretless is a code that is like another.
func secretless(code string) string { return strings.Repeat("A", len(code)) }

// runProgram runs a command of the program and returns all that it says.
func runProgram(t *testing.T, binary, dir string, environ []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, append(args, "--data", dir)...)
	cmd.Env = append(environ, "HTTVPS_BACKEND_PUBLIC_URL=https://vpn.example.net", "HTTVPS_BACKEND_TLS_CERT_FILE=c", "HTTVPS_BACKEND_TLS_KEY_FILE=k")
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // what it says is looked at, whether it failed or not
	return out.String()
}

// signingSeed opens the service's signing key as who has everything could.
func signingSeed(t *testing.T, where store.Config, kek string) (seed []byte) {
	t.Helper()
	keys, err := seal.Open(seal.Source{Text: kek, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.Look(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	err = records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		values, err := tx.SealedValues(ctx)
		for _, v := range values {
			if strings.HasPrefix(v.Row, "token_signing_key/") && err == nil {
				seed, err = keys.Open(v.Sealed, v.Table+"|"+v.Row+"|"+v.Column)
			}
		}
		return err
	})
	if err != nil || len(seed) == 0 {
		t.Fatalf("the signing key: %v", err)
	}
	return seed
}
