package forward_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/cli/internal/forward"
)

func TestSpecIsReadAsPeopleWriteIt(t *testing.T) {
	for text, want := range map[string]forward.Spec{
		"udp:5353:host:53":                          {Network: "udp", Listen: netip.MustParseAddrPort("127.0.0.1:5353"), Target: "host:53"},
		"tcp:localhost:0:example.test:80":           {Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Target: "example.test:80"},
		"tcp:127.0.0.2:8080:192.0.2.1:80":           {Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.2:8080"), Target: "192.0.2.1:80"},
		"udp:[::1]:5353:[2001:db8::1]:53":           {Network: "udp", Listen: netip.MustParseAddrPort("[::1]:5353"), Target: "[2001:db8::1]:53"},
		"udp:65535:[2001:db8::1]:65535":             {Network: "udp", Listen: netip.MustParseAddrPort("127.0.0.1:65535"), Target: "[2001:db8::1]:65535"},
		"tcp:[::ffff:127.0.0.1]:1:bücher.example:1": {Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:1"), Target: "bücher.example:1"},
	} {
		got, err := forward.ParseSpec(text, false)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
		again, err := forward.ParseSpec(got.String(), false)
		if err != nil || !cmp.Equal(again, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("%s reads as %+v, %v", got, again, err)
		}
	}
}

func TestBrokenSpecsSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "want tcp or udp",
		"sctp:1:host:2":                    `"sctp", want tcp or udp`,
		"UDP:1:host:2":                     "want tcp or udp",
		"5353:host:53":                     "want tcp or udp",
		"udp":                              forward.Form,
		"udp:5353":                         forward.Form,
		"udp:host:53":                      forward.Form,
		"udp:2001:db8::1:53:host:53":       "IPv6 addresses in brackets",
		"udp:127.0.0.1:1:host:2:3":         forward.Form,
		"udp:65536:host:53":                `port to listen on: "65536"`,
		"udp:-1:host:53":                   "port to listen on",
		"udp:+1:host:53":                   "port to listen on",
		"udp::host:53":                     `port to listen on: ""`,
		"udp:1:host:0":                     `port of the target: "0", want a number from 1`,
		"udp:1:host:domain":                "port of the target",
		"udp:1::53":                        `target "": want a name`,
		"udp:1:ho st:53":                   "want a name or an IP address",
		"udp:1:user@host:53":               "want a name or an IP address",
		"udp:1:http://host:53":             `listen on "1": want`,
		"udp::1:host:53":                   `listen on "": want an IP address or localhost`,
		"udp:box:1:host:53":                `listen on "box": want an IP address or localhost`,
		"udp:[127.0.0.1]:1:host:53":        "listen on",
		"udp:[::1:1:host:53":               "bracket is not closed",
		"udp:[::1]5353:host:53":            "want a colon behind [::1]",
		"udp:1:[host]:53":                  "want an IPv6 address in the brackets",
		"udp:1:[192.0.2.1]:53":             "want an IPv6 address in the brackets",
		"udp:1:[fe80::1%eth0]:53":          "want an IPv6 address in the brackets",
		"udp:1:[2001:db8::1]":              forward.Form,
		"udp:[::1]:1:host:53:":             forward.Form,
		"tcp:1:host:80 ":                   "port of the target",
		"tcp:1:host:080000000000000000":    "port of the target",
		"tcp:1:[2001:db8::1]:80]":          "port of the target",
		"tcp:127.1:1:host:80":              "listen on",
		"tcp:" + strings.Repeat(":", 4000): forward.Form,
	} {
		spec, err := forward.ParseSpec(text, true)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, forward.ErrPublic) {
			t.Errorf("%q: %+v, %v; want %q", text, spec, err, want)
		}
	}
}

func TestOtherMachinesReachAForwardOnlyWhenThatIsWished(t *testing.T) {
	for _, text := range []string{"tcp:0.0.0.0:1:host:2", "udp:[::]:1:host:2", "tcp:192.0.2.1:1:host:2"} {
		if _, err := forward.ParseSpec(text, false); !errors.Is(err, forward.ErrPublic) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := forward.ParseSpec(text, true); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzSpec: whatever is accepted is read again as the same.
func FuzzSpec(f *testing.F) {
	f.Add("udp:[::1]:5353:[2001:db8::1]:53")
	f.Add("tcp:8080:host:80")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := forward.ParseSpec(text, true)
		if err != nil {
			return
		}
		if again, err := forward.ParseSpec(spec.String(), true); err != nil || again != spec {
			t.Errorf("%q was read as %s, which is read as %s, %v", text, spec, again, err)
		}
	})
}
