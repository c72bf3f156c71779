package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

func TestParseToken(t *testing.T) {
	pin := tlspin.Pin{1}.String()
	for name, tc := range map[string]struct {
		text string
		want string // empty: ErrToken
	}{
		"without a pin":   {"hvt1." + secret, "hvt1." + secret},
		"with a pin":      {"hvt1." + secret + "." + pin, "hvt1." + secret + "." + pin},
		"with a line end": {" hvt1." + secret + "\r\n", "hvt1." + secret},
		"nothing":         {"", ""},
		"other version":   {"hvt2." + secret, ""},
		"short":           {"hvt1." + secret[1:], ""},
		"long":            {"hvt1." + secret + "A", ""},
		"bad alphabet":    {"hvt1." + strings.Replace(secret, "c", "+", 1), ""},
		"bad pin":         {"hvt1." + secret + ".x", ""},
		"empty pin":       {"hvt1." + secret + ".", ""},
		"more":            {"hvt1." + secret + "." + pin + ".x", ""},
		"inner space":     {"hvt1. " + secret[1:], ""},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := api.ParseToken(tc.text)
			if tc.want == "" {
				if !errors.Is(err, api.ErrToken) || !token.IsZero() {
					t.Errorf("ParseToken = %v, %v, want ErrToken", token, err)
				}
				return
			}
			if err != nil || token.Reveal() != tc.want {
				t.Errorf("ParseToken = %v, want the token back", err)
			}
		})
	}
}

func TestTokenDoesNotPrint(t *testing.T) {
	token, err := api.ParseToken("hvt1." + secret)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	holder := struct{ Token api.Token }{token}
	fmt.Fprintf(&out, "%v %+v %#v %s %q %v %+v %#v", token, token, token, token, token, holder, holder, holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("message", "token", token)
	if text, err := json.Marshal(holder); err == nil {
		t.Errorf("a token was marshalled: %s", text)
	}
	if strings.Contains(out.String(), secret) {
		t.Errorf("the token printed itself: %s", out.String())
	}
}

func TestHide(t *testing.T) {
	for text, want := range map[string]string{
		"unknown command \"hvt1." + secret + "\" here":       `unknown command "(hidden)" here`,
		"hvt1." + secret + "." + tlspin.Pin{}.String() + "!": "(hidden)!",
		"https://h/join#code=MZXW6YTBOI2DIMRSGQ2DENZXGA&x":   "https://h/join#(hidden)&x",
		"https://h/join#code=mzxw6ytboi2dimrsgq2denzxga":     "https://h/join#(hidden)",
		"nothing to hide: hvt1.x, code=1":                    "nothing to hide: hvt1.x, code=1",
	} {
		if got := api.Hide(text); got != want {
			t.Errorf("Hide(%q) = %q, want %q", text, got, want)
		}
	}
}
