package certfile_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/certfile"
)

const day = 24 * time.Hour

// files is a directory with a certificate and what was logged about it.
type files struct {
	t         *testing.T
	cert, key string
	logged    bytes.Buffer
}

func newFiles(t *testing.T) *files {
	t.Helper()
	dir := t.TempDir()
	return &files{t: t, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
}

// issue returns a certificate for gw.example, 192.0.2.1 and 2001:db8::1 with this
// serial and what is left of its life.
func (f *files) issue(serial int64, left time.Duration) (cert, key []byte) {
	f.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(left),
		DNSNames: []string{"gw.example"}, IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		f.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// write replaces what is in a file; each time the file gets the same time stamp.
func (f *files) write(name string, text []byte) {
	f.t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Time{}, time.Unix(1e9, 0)); err != nil {
		f.t.Fatal(err)
	}
}

// renew writes a new pair.
func (f *files) renew(serial int64, left time.Duration) {
	f.t.Helper()
	cert, key := f.issue(serial, left)
	f.write(f.cert, cert)
	f.write(f.key, key)
}

func (f *files) open(hosts ...string) *certfile.Pair {
	f.t.Helper()
	pair, err := certfile.Open(f.t.Context(), certfile.Config{
		CertFile: f.cert, KeyFile: f.key, Hosts: hosts, Log: slog.New(slog.NewJSONHandler(&f.logged, nil)),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return pair
}

// event is a line of the log.
type event struct {
	Level, Msg, Host, Problem string
	NotAfter                  string `json:"not_after"`
	Error                     string
}

// events returns what was logged since it was last called.
func (f *files) events() []event {
	f.t.Helper()
	var all []event
	for decoder := json.NewDecoder(&f.logged); decoder.More(); {
		var e event
		if err := decoder.Decode(&e); err != nil {
			f.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func (f *files) wantEvents(want ...event) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.events()); diff != "" {
		f.t.Errorf("log (-want +got):\n%s", diff)
	}
}

func (f *files) wantServed(p *certfile.Pair, serial int64) {
	f.t.Helper()
	cert, err := p.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		f.t.Fatal(err)
	}
	if got := cert.Leaf.SerialNumber.Int64(); got != serial || cert.PrivateKey == nil {
		f.t.Errorf("serves number %d with key %T, want %d with its key", got, cert.PrivateKey, serial)
	}
}

// in says when something ends, as the log does.
func in(left time.Duration) string { return time.Now().Add(left).UTC().Format(time.RFC3339) }

func TestARenewedCertificateIsServedWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		f.renew(1, 90*day)
		p := f.open("gw.example")
		f.renew(2, 80*day)
		end := in(80 * day)
		<-time.After(certfile.Interval - 1)
		f.wantServed(p, 1)
		f.wantEvents()
		<-time.After(1)
		f.wantServed(p, 2)
		f.wantEvents(event{Level: "INFO", Msg: "certificate renewed", NotAfter: end})
		<-time.After(certfile.Interval)
		f.wantServed(p, 2)
		f.wantEvents()
	})
}

func TestWhatIsNotAPairLeavesTheOldOneInPlaceAndIsToldOncePerChange(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(f *files)
		want string
	}{
		"half a certificate":        {func(f *files) { cert, _ := f.issue(2, day); f.write(f.cert, cert[:len(cert)/2]) }, "failed to find any PEM data"},
		"a certificate without key": {func(f *files) { cert, _ := f.issue(2, day); f.write(f.cert, cert) }, "private key does not match"},
		"an empty key":              {func(f *files) { f.write(f.key, nil) }, "failed to find any PEM data in key"},
		"no file at all":            {func(f *files) { _ = os.Remove(f.cert) }, "tls.crt: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFiles(t)
				f.renew(1, 90*day)
				p := f.open("gw.example")
				tc.harm(f)
				for range 3 {
					<-time.After(certfile.Interval)
					f.wantServed(p, 1)
				}
				told := f.events()
				if len(told) != 1 || told[0].Msg != "certificate not renewed" || told[0].Level != "ERROR" || !strings.Contains(told[0].Error, tc.want) {
					t.Errorf("log = %+v, want one error that says %q", told, tc.want)
				}

				f.write(f.cert, []byte("something else"))
				<-time.After(certfile.Interval)
				f.wantServed(p, 1)
				if told := f.events(); len(told) != 1 || !strings.Contains(told[0].Error, "tls.crt") {
					t.Errorf("log after another change = %+v, want one error that names the file", told)
				}

				f.renew(2, 90*day)
				<-time.After(certfile.Interval)
				f.wantServed(p, 2)
			})
		})
	}
}

func TestAnotherReasonWhyAFileCannotBeReadIsToldToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		f.renew(1, 90*day)
		p := f.open("gw.example")
		for _, step := range []struct {
			change func(name string) error
			want   string
		}{
			{os.Remove, "no such file"},
			{func(name string) error { return os.Mkdir(name, 0o700) }, "is a directory"},
		} {
			if err := step.change(f.key); err != nil {
				t.Fatal(err)
			}
			<-time.After(certfile.Interval)
			f.wantServed(p, 1)
			if told := f.events(); len(told) != 1 || !strings.Contains(told[0].Error, "tls.key: "+step.want) {
				t.Errorf("log = %+v, want one error that says %q", told, step.want)
			}
		}
	})
}

func TestHandshakesAtOnceTakeOverARenewalOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		f.renew(1, 90*day)
		p := f.open("gw.example")
		f.renew(2, 90*day)
		end := in(90 * day)
		<-time.After(certfile.Interval)
		var handshakes sync.WaitGroup
		for range 16 {
			handshakes.Go(func() { f.wantServed(p, 2) })
		}
		handshakes.Wait()
		f.wantEvents(event{Level: "INFO", Msg: "certificate renewed", NotAfter: end})
	})
}

func TestACertificateThatDoesNotSuitItsClientsIsToldAtTheStart(t *testing.T) {
	warning := func(host, problem string, left time.Duration) event {
		return event{Level: "WARN", Msg: "certificate does not suit its clients", Host: host, Problem: problem, NotAfter: in(left)}
	}
	for name, tc := range map[string]struct {
		left  time.Duration
		hosts []string
		want  func() []event
	}{
		"suits every host": {left: 90 * day, hosts: []string{"gw.example", "GW.example", "192.0.2.1", "2001:db8::1"}},
		"more than a week": {left: 7*day + 2*certfile.Interval, hosts: []string{"gw.example"}},
		"another name":     {90 * day, []string{"x.example"}, func() []event { return []event{warning("x.example", "other_host", 90*day)} }},
		"another address":  {90 * day, []string{"192.0.2.2"}, func() []event { return []event{warning("192.0.2.2", "other_host", 90*day)} }},
		"a week":           {7 * day, []string{"gw.example"}, func() []event { return []event{warning("gw.example", "expires_soon", 7*day)} }},
		"over":             {-time.Second, []string{"gw.example"}, func() []event { return []event{warning("gw.example", "expired", -time.Second)} }},
		"the same host two times": {90 * day, []string{"x.example", "gw.example", "x.example"}, func() []event {
			return []event{warning("x.example", "other_host", 90*day)}
		}},
		"everything": {-day, []string{"gw.example", "x.example"}, func() []event {
			return []event{warning("gw.example", "expired", -day), warning("x.example", "other_host", -day), warning("x.example", "expired", -day)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFiles(t)
				f.renew(1, tc.left)
				var want []event
				if tc.want != nil {
					want = tc.want()
				}
				p := f.open(tc.hosts...)
				f.wantEvents(want...)
				<-time.After(certfile.Interval) // and is not told again
				f.wantServed(p, 1)
				f.wantEvents()
			})
		})
	}
}

func TestARenewedCertificateIsJudgedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		f.renew(1, 90*day)
		p := f.open("x.example")
		f.events()
		f.renew(2, day)
		end := in(day)
		<-time.After(certfile.Interval)
		f.wantServed(p, 2)
		f.wantEvents(
			event{Level: "INFO", Msg: "certificate renewed", NotAfter: end},
			event{Level: "WARN", Msg: "certificate does not suit its clients", Host: "x.example", Problem: "other_host", NotAfter: end},
			event{Level: "WARN", Msg: "certificate does not suit its clients", Host: "x.example", Problem: "expires_soon", NotAfter: end},
		)
	})
}

func TestACertificateThatNobodyRenewsIsToldBeforeItsEndAndAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		f.renew(1, 8*day)
		p := f.open("gw.example")
		end := in(8 * day)
		for range 9 * 24 {
			<-time.After(time.Hour)
			f.wantServed(p, 1)
		}
		f.wantEvents(
			event{Level: "WARN", Msg: "certificate does not suit its clients", Host: "gw.example", Problem: "expires_soon", NotAfter: end},
			event{Level: "WARN", Msg: "certificate does not suit its clients", Host: "gw.example", Problem: "expired", NotAfter: end},
		)
	})
}

func TestWhatCannotBeOpenedIsAnErrorThatNamesTheFiles(t *testing.T) {
	f := newFiles(t)
	open := func() error {
		_, err := certfile.Open(t.Context(), certfile.Config{CertFile: f.cert, KeyFile: f.key, Log: slog.New(slog.DiscardHandler)})
		return err
	}
	for _, state := range []string{"missing", "damaged"} {
		err := open()
		if err == nil || !strings.Contains(err.Error(), "tls.crt") || !strings.Contains(err.Error(), "tls.key") {
			t.Errorf("Open of %s files = %v", state, err)
		}
		f.write(f.cert, []byte("nonsense"))
		f.write(f.key, []byte("PLANTED"))
	}
	if err := open(); strings.Contains(err.Error(), "PLANTED") {
		t.Errorf("Open = %v, which repeats the key file", err)
	}
}

func TestACheckSaysWhatCannotBeServedAndWhatClientsWillRefuse(t *testing.T) {
	f := newFiles(t)
	cfg := certfile.Config{CertFile: f.cert, KeyFile: f.key, Hosts: []string{"gw.example", "192.0.2.1"}}
	if _, err := certfile.Check(cfg); err == nil || !strings.Contains(err.Error(), "tls.crt") || !strings.Contains(err.Error(), "tls.key") {
		t.Errorf("Check of missing files = %v", err)
	}
	f.renew(1, 90*day)
	if warnings, err := certfile.Check(cfg); err != nil || len(warnings) > 0 {
		t.Errorf("Check = %q, %v", warnings, err)
	}
	_, key := f.issue(2, 90*day)
	f.write(f.key, key)
	if _, err := certfile.Check(cfg); err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("Check of a key that does not fit = %v", err)
	}
	f.renew(3, day)
	cfg.Hosts = []string{"x.example"}
	warnings, err := certfile.Check(cfg)
	if err != nil || len(warnings) != 2 || !strings.HasSuffix(warnings[0], "it is not for x.example") || !strings.Contains(warnings[1], "it ends soon, at ") {
		t.Errorf("Check = %q, %v", warnings, err)
	}
	f.renew(4, -time.Hour)
	cfg.Hosts = []string{"gw.example"}
	if warnings, err := certfile.Check(cfg); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "it has ended, at ") {
		t.Errorf("Check = %q, %v", warnings, err)
	}
}

func TestOtherFilesAreServedOnceTheyAreWanted(t *testing.T) {
	f, other := newFiles(t), newFiles(t)
	f.renew(1, 90*day)
	p := f.open("gw.example")
	if _, err := p.Prepare(t.Context(), other.cert, other.key); err == nil {
		t.Error("Prepare takes files that are not there")
	}
	other.renew(2, 90*day)
	commit, err := p.Prepare(t.Context(), other.cert, other.key)
	if err != nil {
		t.Fatal(err)
	}
	f.wantServed(p, 1)
	commit()
	f.wantServed(p, 2)
	// The same files, that hold something else since: no waiting for the minute to pass.
	other.renew(3, 90*day)
	if commit, err = p.Prepare(t.Context(), other.cert, other.key); err != nil {
		t.Fatal(err)
	}
	commit()
	f.wantServed(p, 3)
}
