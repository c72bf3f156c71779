package link

import (
	"strings"
	"testing"
)

const (
	code = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	pin  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
)

func TestFragmentsAreWrittenWithoutAnythingAShellActsOn(t *testing.T) {
	for want, got := range map[string]string{
		"code=" + code:                 Fragment(code, ""),
		"code=" + code + ",pin=" + pin: Fragment(code, pin),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if strings.ContainsAny(got, " \t\n&|;<>()$`\\\"'*?[]#~!{}%") {
			t.Errorf("%s has to be quoted", got)
		}
	}
}

// The parser in sdk/go/httvps has the same table.
func TestFragmentsAreRead(t *testing.T) {
	for fragment, wantPin := range map[string]string{
		"code=" + code:                                     "",
		"code=" + code + ",pin=" + pin:                     pin,
		"pin=" + pin + ",code=" + strings.ToLower(code):    pin,
		"new=1,code=" + code:                               "",
		"code=" + code + ",later=%20,odd,even=x=y,Code=no": "",
		"code=" + code + ",":                               "",
	} {
		gotCode, gotPin, err := Parse(fragment)
		if err != nil || gotCode != code || gotPin != wantPin {
			t.Errorf("%s: %q, %q, %v", fragment, gotCode, gotPin, err)
		}
	}
}

// The parser in sdk/go/httvps has the same table.
func TestDamagedFragmentsAreRefusedWithoutRepeatingThem(t *testing.T) {
	for name, tc := range map[string]struct{ fragment, want string }{
		"nothing":                       {"", "no code"},
		"no code":                       {"pin=" + pin, "no code"},
		"an empty code":                 {"code=,pin=" + pin, "no code"},
		"a code cut short":              {"code=" + code[:20], "its code"},
		"a code too long":               {"code=" + code + "A", "its code"},
		"a code with a zero":            {"code=0" + code[1:], "its code"},
		"a code with an escape":         {"code=%41" + code[3:], "its code"},
		"a letter that looks like an S": {"code=" + code[:24] + "ſ", "its code"},
		"another separator":             {"code=" + code + "&pin=" + pin, "its code"},
		"two codes":                     {"code=" + code + ",code=" + code, "twice"},
		"two pins":                      {"code=" + code + ",pin=" + pin + ",pin=" + pin, "twice"},
		"two of an unknown name":        {"code=" + code + ",x=1,x=2", "twice"},
		"a pin cut short":               {"code=" + code + ",pin=" + pin[:40], "its pin"},
		"an empty pin":                  {"code=" + code + ",pin=", "its pin"},
		"a pin without a value":         {"code=" + code + ",pin", "its pin"},
		"a pin that another spells":     {"code=" + code + ",pin=" + pin[:42] + "9", "its pin"},
		"an endless fragment":           {"code=" + code + "," + strings.Repeat("x", 3000), "more than"},
	} {
		_, _, err := Parse(tc.fragment)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
			continue
		}
		for _, secret := range []string{code[:20], code[6:], pin[:40]} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error repeats the fragment: %v", name, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("code=" + code)
	f.Add("code=" + code + ",pin=" + pin)
	f.Add("pin=" + pin + ",x,y=z,code=" + strings.ToLower(code))
	f.Fuzz(func(t *testing.T, fragment string) {
		code, pin, err := Parse(fragment)
		if err != nil {
			return
		}
		if again, pinAgain, err := Parse(Fragment(code, pin)); err != nil || again != code || pinAgain != pin {
			t.Errorf("%q: the parts %q and %q do not read again: %q, %q, %v", fragment, code, pin, again, pinAgain, err)
		}
	})
}
