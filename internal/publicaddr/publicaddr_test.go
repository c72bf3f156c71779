package publicaddr

import (
	"net/netip"
	"strings"
	"testing"
)

// The policies of those who connect test the whole table: this is for what is common to
// them.
func TestWhatIsNoAddressOfEverybodyIsNotPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.216.34": true, "::ffff:93.184.216.34": true, "2606:2800:220:1::1": true,
		"127.0.0.1": false, "::ffff:127.0.0.1": false, "10.0.0.1": false, "169.254.169.254": false, "::1": false, "fd00::1": false, "64:ff9b::a00:1": false,
		"2606:2800:220:1::1%eth0": false,
	} {
		if got := Global(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if Global(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

func TestAPrefixThatWouldNeverMatchIsAMistake(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "", "fd00::/8": "", "10.0.0.1/8": "want 10.0.0.0/8", "::ffff:10.0.0.0/104": "want it written as IPv4",
	} {
		err := CheckPrefix(netip.MustParsePrefix(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if CheckPrefix(netip.Prefix{}) == nil {
		t.Error("no prefix at all is right")
	}
}
