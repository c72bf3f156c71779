package words

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/httvps/httvps/sdk/go/httvps"
)

var (
	verb     = regexp.MustCompile(`%[a-z]`)
	cyrillic = regexp.MustCompile(`[А-Яа-яЁё]`)
)

func TestEveryReasonIsExplainedInRussian(t *testing.T) {
	known := httvps.Codes()
	for _, code := range known {
		if text := Russian.Explain(code); !cyrillic.MatchString(text) || !strings.HasSuffix(text, ".") {
			t.Errorf("%s: %q", code, text)
		}
		if text := English.Explain(code); text != httvps.Explain(code) {
			t.Errorf("%s in English: %q", code, text)
		}
	}
	for code := range russianCodes {
		if !slices.Contains(known, code) {
			t.Errorf("%s is no reason", code)
		}
	}
	if text := Russian.Explain("some_new_code"); !cyrillic.MatchString(text) {
		t.Errorf("a reason of tomorrow: %q", text)
	}
}

func TestSentencesTakeTheSameArguments(t *testing.T) {
	for english, text := range russian {
		if !slices.Equal(verb.FindAllString(english, -1), verb.FindAllString(text, -1)) {
			t.Errorf("%q has other verbs than %q", text, english)
		}
		if !cyrillic.MatchString(text) && !strings.Contains(text, "SOCKS5") {
			t.Errorf("%q is not Russian", text)
		}
	}
	if got := Russian.Say("connected to %s", "gw"); got != "подключено к gw" {
		t.Error(got)
	}
	if got := Russian.Say("100% unknown"); got != "100% unknown" {
		t.Error(got)
	}
}

func TestTheEnvironmentSaysTheLanguage(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		want Language
	}{
		"nothing":            {nil, English},
		"Russian":            {map[string]string{"LANG": "ru_RU.UTF-8"}, Russian},
		"Russian, no region": {map[string]string{"LANG": "ru"}, Russian},
		"Rundi":              {map[string]string{"LANG": "run_BI"}, English},
		"messages":           {map[string]string{"LANG": "en_US.UTF-8", "LC_MESSAGES": "ru_RU.UTF-8"}, Russian},
		"all":                {map[string]string{"LANG": "ru_RU.UTF-8", "LC_ALL": "C"}, English},
	} {
		if got := Of(func(name string) string { return tc.env[name] }); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDaysAreCountedAsPeopleSay(t *testing.T) {
	for n, want := range map[int][2]string{
		0: {"0 days", "0 дней"}, 1: {"1 day", "1 день"}, 2: {"2 days", "2 дня"}, 5: {"5 days", "5 дней"}, 11: {"11 days", "11 дней"},
		12: {"12 days", "12 дней"}, 21: {"21 days", "21 день"}, 22: {"22 days", "22 дня"}, 111: {"111 days", "111 дней"},
	} {
		if got := [2]string{English.Days(n), Russian.Days(n)}; got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
