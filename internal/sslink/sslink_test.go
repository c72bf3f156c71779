package sslink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const password = "p|-one-123456"

func raw(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
func std(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// plain is compared instead of a Link, which would not show what differs.
type plain Link

func TestLinksAreRead(t *testing.T) {
	chacha := func(change func(*Link)) Link {
		l := Link{Host: "203.0.113.9", Port: 19000, Cipher: ChaCha20IETFPoly1305, Password: password}
		if change != nil {
			change(&l)
		}
		return l
	}
	account := raw("chacha20-ietf-poly1305:" + password)
	for name, tc := range map[string]struct {
		link string
		want Link
	}{
		"as Outline writes it": {
			"ss://YWVzLTE5Mi1nY206cHctb25lLTEyMzQ1Ng@127.0.0.1:19000/?outline=1",
			Link{Host: "127.0.0.1", Port: 19000, Cipher: AES192GCM, Password: "pw-one-123456", Outline: true},
		},
		"nothing but the account and the server": {"ss://" + account + "@203.0.113.9:19000", chacha(nil)},
		"a scheme in capital letters":            {"SS://" + account + "@203.0.113.9:19000/", chacha(nil)},
		"base64 with padding":                    {"ss://" + std("chacha20-ietf-poly1305:"+password) + "@203.0.113.9:19000", chacha(nil)},
		"base64 with its padding percent-encoded": {
			"ss://" + strings.ReplaceAll(std("aes-128-gcm:abcd"), "=", "%3D") + "@203.0.113.9:19000",
			chacha(func(l *Link) { l.Cipher, l.Password = AES128GCM, "abcd" }),
		},
		"base64 in the other alphabet": {
			"ss://" + std("chacha20-ietf-poly1305:??>>~~ÿÿ") + "@203.0.113.9:19000", chacha(func(l *Link) { l.Password = "??>>~~ÿÿ" }),
		},
		"percent-encoded": {
			"ss://aes-256-gcm:a%3Ab%40c%2Fd%20%25+@203.0.113.9:19000", chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "a:b@c/d %+" }),
		},
		"percent-encoded, the colon too": {"ss://aes-256-gcm%3Apw@203.0.113.9:19000", chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "pw" })},
		"a cipher in capital letters":    {"ss://AES-256-GCM:pw@203.0.113.9:19000", chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "pw" })},
		"a password in Cyrillic":         {"ss://" + raw("aes-256-gcm:пароль") + "@203.0.113.9:19000", chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "пароль" })},
		"a name": {
			"ss://" + account + "@203.0.113.9:19000/?outline=1#Pool%201%3A%20%D0%90",
			chacha(func(l *Link) { l.Outline, l.Tag = true, "Pool 1: А" }),
		},
		"a name that is not encoded":   {"ss://" + account + "@203.0.113.9:19000#Сервер 1", chacha(func(l *Link) { l.Tag = "Сервер 1" })},
		"a name with a + and a ?":      {"ss://" + account + "@203.0.113.9:19000#a+b?c", chacha(func(l *Link) { l.Tag = "a+b?c" })},
		"an empty name":                {"ss://" + account + "@203.0.113.9:19000#", chacha(nil)},
		"an empty query":               {"ss://" + account + "@203.0.113.9:19000/?", chacha(nil)},
		"an expanded IPv6 address":     {"ss://" + account + "@[2001:db8:0:0:0:0:0:1]:443/?outline=1", chacha(func(l *Link) { l.Host, l.Port, l.Outline = "2001:db8::1", 443, true })},
		"an IPv4 address as IPv6":      {"ss://" + account + "@[::ffff:203.0.113.9]:19000", chacha(nil)},
		"a host name":                  {"ss://" + account + "@SS-1.example.NET:65535", chacha(func(l *Link) { l.Host, l.Port = "ss-1.example.net", 65535 })},
		"a name beyond ASCII, encoded": {"ss://" + account + "@xn--80a.example:1", chacha(func(l *Link) { l.Host, l.Port = "xn--80a.example", 1 })},
		"a prefix": {
			"ss://" + account + "@203.0.113.9:19000/?outline=1&prefix=POST%20", chacha(func(l *Link) { l.Outline, l.Prefix = true, []byte("POST ") }),
		},
		"a prefix with a +, as forms write a space": {
			"ss://" + account + "@203.0.113.9:19000/?prefix=POST+", chacha(func(l *Link) { l.Prefix = []byte("POST ") }),
		},
		"an empty prefix": {"ss://" + account + "@203.0.113.9:19000/?prefix=", chacha(nil)},
		"a prefix of bytes beyond ASCII": {
			"ss://" + account + "@203.0.113.9:19000/?prefix=%16%03%01%00%C2%A8%01%01", chacha(func(l *Link) { l.Prefix = []byte{0x16, 3, 1, 0, 0xa8, 1, 1} }),
		},
		"the longest prefix of chacha20": {
			"ss://" + account + "@203.0.113.9:19000/?prefix=" + strings.Repeat("a", 24), chacha(func(l *Link) { l.Prefix = []byte(strings.Repeat("a", 24)) }),
		},
		"the longest prefix of aes-128": {
			"ss://aes-128-gcm:x@203.0.113.9:19000/?prefix=12345678",
			chacha(func(l *Link) { l.Cipher, l.Password, l.Prefix = AES128GCM, "x", []byte("12345678") }),
		},
		"legacy":              {"ss://" + raw("aes-256-gcm:pw@203.0.113.9:19000"), chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "pw" })},
		"legacy with padding": {"ss://" + std("aes-256-gcm:pw@203.0.113.9:19000") + "#x", chacha(func(l *Link) { l.Cipher, l.Password, l.Tag = AES256GCM, "pw", "x" })},
		"legacy with an @ and colons in the password": {
			"ss://" + std("aes-256-gcm:p@w:1@203.0.113.9:19000") + "#x%20y", chacha(func(l *Link) { l.Cipher, l.Password, l.Tag = AES256GCM, "p@w:1", "x y" }),
		},
		"legacy with slashes in base64": {"ss://" + std("aes-256-gcm:???>>>@203.0.113.9:19000"), chacha(func(l *Link) { l.Cipher, l.Password = AES256GCM, "???>>>" })},
		"legacy with an IPv6 address":   {"ss://" + raw("aes-256-gcm:pw@[2001:db8::1]:19000"), chacha(func(l *Link) { l.Cipher, l.Password, l.Host = AES256GCM, "pw", "2001:db8::1" })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tc.link)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain(tc.want), plain(got)); diff != "" {
				t.Errorf("unexpected link (-want +got):\n%s", diff)
			}
			again, err := Parse(got.Reveal())
			if err != nil {
				t.Fatalf("what was written does not read: %v", err)
			}
			if diff := cmp.Diff(plain(got), plain(again)); diff != "" {
				t.Errorf("written and read again (-before +after):\n%s", diff)
			}
		})
	}
}

func TestLinksAreWrittenAsOutlineReadsThem(t *testing.T) {
	l := Link{Host: "2001:db8::1", Port: 443, Cipher: AES256GCM, Password: "a:b c", Prefix: []byte{0x16, ' ', '+', 0xa8}, Outline: true, Tag: "Pool 1"}
	const want = "ss://YWVzLTI1Ni1nY206YTpiIGM@[2001:db8::1]:443/?outline=1&prefix=%16%20%2B%C2%A8#Pool%201"
	if got := l.Reveal(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	u, err := url.Parse(want) // as Outline's own client takes it apart
	if err != nil || u.Hostname() != l.Host || u.Query().Get("prefix") != "\x16 +\u00a8" || u.Fragment != l.Tag {
		t.Errorf("read as %v, %v", u, err)
	}
}

func TestDamagedLinksAreRefusedWithoutRepeatingThem(t *testing.T) {
	account := raw("chacha20-ietf-poly1305:" + password)
	const server = "@203.0.113.9:19000"
	for name, tc := range map[string]struct{ link, want string }{
		"nothing":                             {"", "does not begin with ss://"},
		"no scheme":                           {account + server, "does not begin with ss://"},
		"another scheme":                      {"vmess://" + account + server, "does not begin with ss://"},
		"a dynamic key":                       {"ssconf://example.net/" + account, "dynamic key"},
		"a web address":                       {"https://example.net/" + account, "web address"},
		"a space in front":                    {" ss://" + account + server, "does not begin with ss://"},
		"a line end behind it":                {"ss://" + account + server + "\n", "a space"},
		"a space within":                      {"ss://" + account + " " + server, "a space"},
		"a line end in base64":                {"ss://" + account[:8] + "\n" + account[8:] + server, "a space"},
		"an encoded line end in base64":       {"ss://" + account[:8] + "%0A" + account[8:] + server, "neither cipher:password"},
		"a letter beyond ASCII in the host":   {"ss://" + account + "@сервер:1", "beyond ASCII"},
		"one beyond ASCII in a legacy host":   {"ss://" + raw("aes-256-gcm:"+password+"@сервер:1"), "xn--"},
		"an endless link":                     {"ss://" + account + server + "#" + strings.Repeat(password, 1000), "more than 2048"},
		"only the scheme":                     {"ss://", "no server"},
		"an account cut off":                  {"ss://" + account[:9] + server, "neither cipher:password"},
		"an account without a password":       {"ss://" + raw("chacha20-ietf-poly1305") + server, "a colon"},
		"an empty account":                    {"ss://" + server, "a colon"},
		"an empty password":                   {"ss://aes-256-gcm:" + server, "password is empty"},
		"a password that is not text":         {"ss://aes-256-gcm:" + password + "%FF" + server, "not text"},
		"a password with a zero byte":         {"ss://aes-256-gcm:" + password + "%00" + server, "not text"},
		"an endless password":                 {"ss://aes-256-gcm:" + strings.Repeat(password, 20) + server, "more than 256"},
		"a broken escape in front of the @":   {"ss://aes-256-gcm:" + password + "%4" + server, "a %"},
		"two @":                               {"ss://aes-256-gcm:" + password + "@x" + server, "%40"},
		"a wrong padding":                     {"ss://" + account + "=" + server, "neither cipher:password"},
		"three characters of padding":         {"ss://" + raw("aes-256-gcm:" + password + "xx")[:29] + "===" + server, "neither cipher:password"},
		"bits left over in base64":            {"ss://" + raw("aes-256-gcm:ab")[:18] + "j" + server, "neither cipher:password"},
		"an old cipher":                       {"ss://" + raw("rc4-md5:"+password) + server, "cipher is none of"},
		"no cipher at all":                    {"ss://none:" + password + server, "cipher is none of"},
		"Shadowsocks 2022":                    {"ss://2022-blake3-aes-256-gcm:" + password + server, "cipher is none of"},
		"cipher and password swapped":         {"ss://" + password + ":aes-256-gcm" + server, "cipher is none of"},
		"legacy without a server":             {"ss://" + account, "no server"},
		"legacy that is no base64":            {"ss://chacha20-ietf-poly1305:" + password, "not base64"},
		"legacy without a port":               {"ss://" + raw("aes-256-gcm:"+password+"@203.0.113.9"), "no port"},
		"legacy with a line end":              {"ss://" + raw("aes-256-gcm:"+password+server+"\n"), "port is not"},
		"no port":                             {"ss://" + account + "@203.0.113.9", "no port"},
		"an empty port":                       {"ss://" + account + "@203.0.113.9:", "port is not"},
		"port 0":                              {"ss://" + account + "@203.0.113.9:0", "port is not"},
		"port 65536":                          {"ss://" + account + "@203.0.113.9:65536", "port is not"},
		"a port with a sign":                  {"ss://" + account + "@203.0.113.9:+443", "port is not"},
		"a port with a zero in front":         {"ss://" + account + "@203.0.113.9:0443", "port is not"},
		"a port that is a word":               {"ss://" + account + "@203.0.113.9:" + password, "port is not"},
		"no host":                             {"ss://" + account + "@:443", "no name"},
		"an IPv6 address without brackets":    {"ss://" + account + "@2001:db8::1:443", "[ADDRESS]:PORT"},
		"brackets that are not closed":        {"ss://" + account + "@[2001:db8::1:443", "not closed"},
		"a name in brackets":                  {"ss://" + account + "@[example.net]:443", "not an IPv6"},
		"an IPv4 address in brackets":         {"ss://" + account + "@[203.0.113.9]:443", "not an IPv6"},
		"nothing behind the brackets":         {"ss://" + account + "@[2001:db8::1]", "no port"},
		"a zone":                              {"ss://" + account + "@[fe80::1%eth0]:443", "a zone"},
		"no one machine":                      {"ss://" + account + "@0.0.0.0:443", "not that of one machine"},
		"a group of machines":                 {"ss://" + account + "@[ff02::1]:443", "not that of one machine"},
		"a number as host":                    {"ss://" + account + "@2130706433:443", "neither a host name"},
		"a hexadecimal number as host":        {"ss://" + account + "@0x7f000001:443", "neither a host name"},
		"an IPv4 address with a part missing": {"ss://" + account + "@127.1:443", "neither a host name"},
		"an IPv4 address with a part too big": {"ss://" + account + "@203.0.113.256:443", "neither a host name"},
		"a name with an underscore":           {"ss://" + account + "@a_b.example:443", "neither a host name"},
		"a name with an escape":               {"ss://" + account + "@a%41.example:443", "neither a host name"},
		"a name that ends in a dot":           {"ss://" + account + "@example.net.:443", "neither a host name"},
		"a label of 64 letters":               {"ss://" + account + "@" + strings.Repeat("a", 64) + ":443", "neither a host name"},
		"a name of 254 letters":               {"ss://" + account + "@" + strings.Repeat("a.", 126) + "aa:443", "neither a host name"},
		"a path":                              {"ss://" + account + server + "/" + password, "a path"},
		"a plugin":                            {"ss://" + account + server + "/?plugin=obfs-local%3B" + password, "a plugin"},
		"an unknown word behind the ?":        {"ss://" + account + server + "/?" + password + "=1", "not known"},
		"outline=0":                           {"ss://" + account + server + "/?outline=0", "outline= is not 1"},
		"two prefixes":                        {"ss://" + account + server + "/?prefix=a&prefix=" + password, "twice"},
		"a prefix with a broken escape":       {"ss://" + account + server + "/?prefix=%1", "a %"},
		"a prefix with a letter beyond":       {"ss://" + account + server + "/?prefix=%D0%90", "beyond U+00FF"},
		"a prefix that is not UTF-8":          {"ss://" + account + server + "/?prefix=%16%A8", "beyond U+00FF"},
		"a prefix too long":                   {"ss://" + account + server + "/?prefix=" + strings.Repeat("a", 25), "has 25 bytes, want at most 24"},
		"one too long for aes-128":            {"ss://aes-128-gcm:" + password + server + "/?prefix=123456789", "has 9 bytes, want at most 8"},
		"a name with a broken escape":         {"ss://" + account + server + "#%zz" + password, "its name"},
		"a name that is not text":             {"ss://" + account + server + "#%FF" + password, "its name"},
		"a name with a control character":     {"ss://" + account + server + "#a%1B" + password, "its name"},
		"an endless name":                     {"ss://" + account + server + "#" + strings.Repeat("a", 257), "its name"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Parse(tc.link)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			if diff := cmp.Diff(plain(Link{}), plain(l)); diff != "" {
				t.Errorf("there is a link with the error: %s", diff)
			}
			for _, secret := range []string{password, account, account[:9], raw(password)} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error repeats the link: %v", err)
				}
			}
		})
	}
}

func TestALinkDoesNotShowItsSecretByAccident(t *testing.T) {
	l := Link{Host: "ss.example.net", Port: 443, Cipher: AES256GCM, Password: password, Prefix: []byte("PREFIX")}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "link", l, "pointer", &l, "list", []Link{l})
	written, err := json.Marshal(struct{ L Link }{l})
	if err == nil {
		t.Errorf("a link was written as JSON: %s", written)
	}
	shown := log.String() + string(written) + fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v", l, l, l, l, l, &l, []Link{l}, struct{ L Link }{l})
	if strings.Contains(shown, password) || strings.Contains(shown, "PREFIX") {
		t.Errorf("shown: %s", shown)
	}
	if !strings.Contains(shown, "ss.example.net:443") {
		t.Errorf("it does not say which link it is: %s", shown)
	}
}

func TestEveryCipherHasItsKeySize(t *testing.T) {
	want := map[Cipher]int{ChaCha20IETFPoly1305: 32, AES256GCM: 32, AES192GCM: 24, AES128GCM: 16}
	for _, c := range Ciphers() {
		if c.KeySize() != want[c] {
			t.Errorf("%s has keys of %d bytes, want %d", c, c.KeySize(), want[c])
		}
		if !strings.Contains(cipherNames, string(c)) {
			t.Errorf("the error about ciphers does not name %s", c)
		}
		delete(want, c)
	}
	if len(want) > 0 || Cipher("rc4-md5").KeySize() != 0 {
		t.Errorf("missing: %v", want)
	}
}

func FuzzParse(f *testing.F) {
	for _, link := range []string{
		"ss://YWVzLTE5Mi1nY206cHctb25lLTEyMzQ1Ng@127.0.0.1:19000/?outline=1",
		"ss://" + raw("chacha20-ietf-poly1305:"+password) + "@[2001:db8:0:0:0:0:0:1]:443/?outline=1&prefix=%16%03%01%00%C2%A8%01%01#a%20b",
		"ss://aes-256-gcm:a%3Ab%40c@example.net:1#%D0%90",
		"ss://" + std("aes-128-gcm:p@w:1@203.0.113.9:19000") + "?outline=1#x",
		"ss://", "ss://@:", "ss://a:b@c:d", "ssconf://x/y",
	} {
		f.Add(link)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			if len(text) > 40 && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats the link: %v", err)
			}
			return
		}
		if l.Cipher.KeySize() == 0 || l.Password == "" || l.Host == "" || l.Port == 0 || len(l.Prefix) > l.Cipher.KeySize()-saltLeft {
			t.Errorf("%q gives a link that is none: %#v", text, plain(l))
		}
		again, err := Parse(l.Reveal())
		if err != nil {
			t.Fatalf("%q: what was written, %q, does not read: %v", text, l.Reveal(), err)
		}
		if diff := cmp.Diff(plain(l), plain(again)); diff != "" {
			t.Errorf("%q, written and read again (-before +after):\n%s", text, diff)
		}
	})
}
