package knock

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	vectorFile = "../../testvectors/knock.json"
	document   = "../../../docs/03-httvps-protocol.md"
)

// A vector is one of sdk/testvectors/knock.json; the README beside it says what its
// fields are.
type vector struct {
	Name    string     `json:"name"`
	Keys    []hexBytes `json:"keys"`
	Host    string     `json:"host"`
	Now     int64      `json:"now"`
	Minutes uint32     `json:"minutes"`
	Random  hexBytes   `json:"random"`
	Knock   string     `json:"knock"`
	Refused bool       `json:"refused"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (v vector) keys() []Key {
	list := make([]Key, 0, len(v.Keys))
	for _, k := range v.Keys {
		list = append(list, Key(k))
	}
	return list
}

func (v vector) now() time.Time { return time.Unix(v.Now, 0) }

func load(tb testing.TB) []vector {
	tb.Helper()
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		tb.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var list []vector
	if err := dec.Decode(&list); err != nil {
		tb.Fatalf("%s: %v", vectorFile, err)
	}
	if len(list) == 0 {
		tb.Fatalf("%s has no vectors", vectorFile)
	}
	return list
}

func TestKnockVectors(t *testing.T) {
	for _, v := range load(t) {
		t.Run(v.Name, func(t *testing.T) {
			if got := Verify(v.keys(), v.Host, v.Knock, v.now()); got == v.Refused {
				t.Fatalf("Verify = %t, want %t", got, !v.Refused)
			}
			if v.Refused {
				return
			}
			head := [headSize]byte{version1, byte(v.Minutes >> 24), byte(v.Minutes >> 16), byte(v.Minutes >> 8), byte(v.Minutes)}
			copy(head[5:], v.Random)
			made := false
			for _, key := range v.keys() {
				made = made || seal(key, v.Host, head) == v.Knock
			}
			if !made {
				t.Error("none of the keys makes this knock of minutes and random")
			}
		})
	}
}

// TestWorkedKnockOfTheDocument reads the bytes of part 12.
func TestWorkedKnockOfTheDocument(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	worked := load(t)[0]
	_, part, _ := strings.Cut(string(raw), "\n## 12. Worked example\n")
	part, _, _ = strings.Cut(part, "\n## ")
	field := func(name string) string {
		line := regexp.MustCompile(`(?m)^` + name + ` +(.+?)(?:  .*)?$`).FindStringSubmatch(part)
		if line == nil {
			t.Fatalf("the document has no line for %s", name)
		}
		return line[1]
	}
	bytesOf := func(name string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(field(name), " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return b
	}
	if got := bytesOf("key"); !bytes.Equal(got, worked.Keys[0]) {
		t.Errorf("key %x, the vector has %x", got, worked.Keys[0])
	}
	if got := field("host"); got != worked.Host {
		t.Errorf("host %s, the vector has %s", got, worked.Host)
	}
	if got := field("knock"); got != worked.Knock {
		t.Errorf("knock %s, the vector has %s", got, worked.Knock)
	}
	if got := base64url.EncodeToString(append(bytesOf("head"), bytesOf("mac")...)); got != worked.Knock {
		t.Errorf("head and mac make %s, the vector has %s", got, worked.Knock)
	}
}

// A sample is input that a property has to hold for.
type sample struct {
	rand *rand.Rand
	key  Key
	host string
	now  time.Time
}

// samples yields many of them, each with the seed that it is made of.
func samples(yield func(seed uint64, s sample) bool) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		host := make([]byte, r.IntN(200))
		for i := range host {
			host[i] = byte(' ' + r.IntN(95))
		}
		if !yield(seed, sample{r, randomKey(r), string(host), time.Unix(r.Int64N(1<<33), r.Int64N(1e9))}) {
			return
		}
	}
}

func randomKey(r *rand.Rand) (key Key) {
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	return key
}

func TestKnockIsAcceptedFor15MinutesBothWays(t *testing.T) {
	for seed, s := range samples {
		now := s.now.Truncate(time.Minute).Add(time.Hour)
		keys := []Key{randomKey(s.rand), s.key}
		for away := -20; away <= 20; away++ {
			within := time.Duration(s.rand.Int64N(int64(time.Minute))) // the minute, on each end
			text := Mint(s.key, s.host, now.Add(time.Duration(away)*time.Minute+within))
			for _, at := range []time.Time{now, now.Add(time.Minute - 1)} {
				if got, want := Verify(keys, s.host, text, at), -15 <= away && away <= 15; got != want {
					t.Errorf("seed %d, %d minutes away: %t", seed, away, got)
				}
			}
		}
	}
}

func TestKnockIsGoodForItsKeyAndHostOnly(t *testing.T) {
	for seed, s := range samples {
		text := Mint(s.key, s.host, s.now)
		other := randomKey(s.rand)
		if len(text) != Size {
			t.Errorf("seed %d: a knock of %d characters", seed, len(text))
		}
		for name, tc := range map[string]struct {
			keys []Key
			host string
			want bool
		}{
			"the key":                {[]Key{s.key}, s.host, true},
			"the first of two keys":  {[]Key{s.key, other}, s.host, true},
			"the second of two keys": {[]Key{other, s.key}, s.host, true},
			"in lower case":          {[]Key{s.key}, strings.ToLower(s.host), true},
			"in upper case":          {[]Key{s.key}, strings.ToUpper(s.host), true},
			"another key":            {[]Key{other}, s.host, false},
			"no key":                 {nil, s.host, false},
			"a longer host":          {[]Key{s.key}, s.host + ".", false},
			"a host before the host": {[]Key{s.key}, "a" + s.host, false},
		} {
			if got := Verify(tc.keys, tc.host, text, s.now); got != tc.want {
				t.Errorf("seed %d, %s: Verify = %t, host %q", seed, name, got, tc.host)
			}
		}
	}
}

func TestEveryOtherCharacterIsRefused(t *testing.T) {
	key, now := Key{1}, time.Unix(1767323045, 0)
	text := Mint(key, "vpn.example.com", now)
	for i := range text {
		for c := range 256 {
			changed := text[:i] + string([]byte{byte(c)}) + text[i+1:]
			if got := Verify([]Key{key}, "vpn.example.com", changed, now); got != (changed == text) {
				t.Errorf("character %d as 0x%02x: Verify = %t", i, c, got)
			}
		}
	}
}

func TestEveryBitIsUnderTheMac(t *testing.T) {
	key, now := Key{1}, time.Unix(1767323045, 0)
	whole, err := base64url.DecodeString(Mint(key, "vpn.example.com", now))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		for bit := range 8 {
			whole[i] ^= 1 << bit
			if Verify([]Key{key}, "vpn.example.com", base64url.EncodeToString(whole), now) {
				t.Errorf("byte %d without its bit %d is accepted", i, bit)
			}
			whole[i] ^= 1 << bit
		}
	}
}

func TestKnocksAreNeverAlike(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		seen[Mint(Key{}, "", time.Time{})] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 knocks differ", len(seen))
	}
}

func TestKeyThatWasNotSetVerifiesNothing(t *testing.T) {
	now := time.Unix(1767323045, 0)
	if Verify([]Key{{}, {1}}, "h", Mint(Key{}, "h", now), now) {
		t.Error("a knock of the zero key is accepted")
	}
}

func TestClockThatAKnockCannotHold(t *testing.T) {
	for name, tc := range map[string]struct {
		now  time.Time
		want uint32
	}{
		"the zero time":            {time.Time{}, 0},
		"a second before 1970":     {time.Unix(-1, 0), 0},
		"the last second that can": {time.Unix(math.MaxUint32*60+59, 0), math.MaxUint32},
		"the first that cannot":    {time.Unix(math.MaxUint32*60+60, 0), math.MaxUint32},
		"the largest there is":     {time.Unix(math.MaxInt64, 0), math.MaxUint32},
	} {
		if got := minutes(tc.now); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
		if !Verify([]Key{{1}}, "h", Mint(Key{1}, "h", tc.now), tc.now) {
			t.Errorf("%s: an own knock is refused", name)
		}
	}
}

func TestVerifyNeedsMemoryOfAFixedSize(t *testing.T) {
	now := time.Unix(1767323045, 0)
	keys := []Key{{1}, {2}}
	long := strings.Repeat("x", 1<<20)
	for name, tc := range map[string]struct{ host, text string }{
		"a knock":        {"vpn.example.com", Mint(keys[0], "vpn.example.com", now)},
		"a long host":    {long, Mint(keys[1], long, now)},
		"another host":   {long, Mint(keys[1], "vpn.example.com", now)},
		"a long knock":   {"vpn.example.com", long},
		"an empty knock": {"vpn.example.com", ""},
	} {
		if n := allocated(4096, func() { Verify(keys, tc.host, tc.text, now) }); n > 4096 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

// allocated returns how many bytes f allocates. The runtime itself allocates now and
// then, so what is over limit is measured again, and the least counts.
func allocated(limit uint64, f func()) uint64 {
	least := uint64(math.MaxUint64)
	var before, after runtime.MemStats
	for range 5 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if least = min(least, after.TotalAlloc-before.TotalAlloc); least <= limit {
			break
		}
	}
	return least
}

func BenchmarkVerify(b *testing.B) {
	now := time.Unix(1767323045, 0)
	keys := []Key{{1}, {2}}
	for name, text := range map[string]string{
		"Valid":     Mint(keys[0], "vpn.example.com", now),
		"WrongMac":  Mint(Key{3}, "vpn.example.com", now),
		"Malformed": "not a knock",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Verify(keys, "vpn.example.com", text, now)
			}
		})
	}
}
