// Package words says in a person's language what the command has to say while it
// works. Help is in English.
package words

import (
	"fmt"
	"strings"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// Language is one that the command speaks.
type Language int

// The languages.
const (
	English Language = iota
	Russian
)

// Of returns the language that the environment asks for, as POSIX has it.
func Of(getenv func(name string) string) Language {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if locale := getenv(name); locale != "" {
			language, _, _ := strings.Cut(locale, "_")
			language, _, _ = strings.Cut(language, ".")
			if strings.EqualFold(language, "ru") {
				return Russian
			}
			return English
		}
	}
	return English
}

// Say returns an English sentence in the language; args are for its verbs.
func (l Language) Say(english string, args ...any) string {
	text := english
	if l == Russian {
		if known, ok := russian[english]; ok {
			text = known
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// Days is a number of days in words.
func (l Language) Days(n int) string {
	form := "days"
	switch {
	case l != Russian && n == 1:
		form = "day"
	case l != Russian:
	case n%10 == 1 && n%100 != 11:
		form = "день"
	case n%10 >= 2 && n%10 <= 4 && (n%100 < 12 || n%100 > 14):
		form = "дня"
	default:
		form = "дней"
	}
	return fmt.Sprintf("%d %s", n, form)
}

// Explain is httvps.Explain in the language.
func (l Language) Explain(code string) string {
	english := httvps.Explain(code)
	if l != Russian {
		return english
	}
	if text, ok := russianCodes[code]; ok {
		return text
	}
	return l.Say(english)
}
