package totp_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/internal/totp"
)

// The vectors of RFC 6238, appendix B: the last six of their eight digits.
func TestCodesAreThoseOfTheStandard(t *testing.T) {
	secret := []byte("12345678901234567890")
	for seconds, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		at := time.Unix(seconds, 0)
		if got := totp.Code(secret, totp.Step(at)); got != want {
			t.Errorf("the code at %d is %s, want %s", seconds, got, want)
		}
		if step, err := totp.Match(secret, want, at); err != nil || step != totp.Step(at) {
			t.Errorf("at %d the code is of step %d, %v", seconds, step, err)
		}
	}
}

func TestClocksMayDifferByOneStep(t *testing.T) {
	secret, now := totp.NewSecret(), time.Unix(1e9, 0)
	for ahead := int64(-3); ahead <= 3; ahead++ {
		code := totp.Code(secret, totp.Step(now)+ahead)
		step, err := totp.Match(secret, code, now)
		if want := ahead >= -1 && ahead <= 1; (err == nil) != want || want && step != totp.Step(now)+ahead {
			t.Errorf("a code of %d steps ahead: step %d, %v", ahead, step-totp.Step(now), err)
		}
	}
	for _, code := range []string{"", "1", "12345", "1234567", strings.Repeat("0", 100)} {
		if _, err := totp.Match(secret, code, now); err == nil {
			t.Errorf("%q passes for a code", code)
		}
	}
}

func TestASecretIsReadAsItWasWritten(t *testing.T) {
	secret := totp.NewSecret()
	text := totp.FormatSecret(secret)
	if got, err := totp.ParseSecret(text); err != nil || string(got) != string(secret) {
		t.Errorf("ParseSecret = %x, %v, want %x", got, err, secret)
	}
	uri, err := url.Parse(totp.URI(secret, "My: service", "ann & bob"))
	if err != nil || uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Path != "/My  service:ann & bob" || uri.Query().Get("secret") != text ||
		uri.Query().Get("issuer") != "My: service" {
		t.Errorf("the URI is %s, %v", uri, err)
	}
}

func FuzzSecret(f *testing.F) {
	f.Add("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
	f.Add("gezdgnbvgy3tqojqgezdgnbvgy3tqojq")
	f.Add("GEZDGNBVGY3TQOJQ")
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := totp.ParseSecret(text)
		if err != nil {
			if !errors.Is(err, totp.ErrSecret) || len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("ParseSecret(%q) = %v", text, err)
			}
			return
		}
		if len(secret) != totp.SecretBytes || totp.FormatSecret(secret) != text {
			t.Errorf("ParseSecret(%q) = %x", text, secret)
		}
	})
}
