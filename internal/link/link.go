// Package link writes and reads what follows the # in the links that a service
// hands out (invitation, gateway join, bootstrap):
//
//	code=CODE[,pin=PIN]
//
// It stands in the fragment because no server ever gets to see that, and holds
// no character that a shell would act on. Nothing in it is escaped.
package link

import (
	"errors"
	"fmt"
	"strings"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	codeLen = 26 // 128 bits in base32 without padding
	digits  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz234567"

	// maxFragment is many times what we write, for names that are yet to come.
	maxFragment = 1024
)

// Fragment writes a one-time code and the pin of the service's own certificate
// authority, which may be empty.
func Fragment(code, pin string) string {
	if pin == "" {
		return "code=" + code
	}
	return "code=" + code + ",pin=" + pin
}

// Parse reads what [Fragment] writes. The code may be in either case and is
// returned in upper case; the pin is one that [tlspin.Parse] takes, or empty when
// there is none. Names that it does not know are ignored, and a name that comes
// twice is an error. Errors do not repeat the text, which is secret, and read on
// from something like "the join link is damaged: ".
func Parse(fragment string) (code, pin string, err error) {
	if len(fragment) > maxFragment {
		return "", "", fmt.Errorf("it has more than %d characters behind the #", maxFragment)
	}
	values := make(map[string]string)
	for part := range strings.SplitSeq(fragment, ",") {
		name, value, _ := strings.Cut(part, "=")
		if _, twice := values[name]; twice {
			return "", "", errors.New("it says something twice")
		}
		values[name] = value
	}
	code = values["code"]
	switch {
	case code == "":
		return "", "", errors.New("it has no code")
	case len(code) != codeLen || strings.Trim(code, digits) != "":
		return "", "", fmt.Errorf("its code is not %d letters and digits", codeLen)
	}
	if pin, has := values["pin"]; has {
		if _, err := tlspin.Parse(pin); err != nil {
			return "", "", errors.New("its pin is not 43 letters, digits, - and _")
		}
	}
	return strings.ToUpper(code), values["pin"], nil
}
