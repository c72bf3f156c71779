package wire

import (
	"fmt"
	"math/bits"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const document = "../../../docs/03-httvps-protocol.md"

func readDocument(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestCodesAreThoseOfTheDocument(t *testing.T) {
	_, part, _ := strings.Cut(readDocument(t), "\n## 9. Codes\n")
	part, _, _ = strings.Cut(part, "\n## ")
	row := regexp.MustCompile(`\| (\d+) \| ([a-z_]+) (?:\||$)`)
	documented := map[Code]string{}
	for _, m := range row.FindAllStringSubmatch(part, -1) {
		n, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		documented[Code(n)] = m[2]
	}
	if len(documented) != 35 {
		t.Fatalf("found %d codes in the document", len(documented))
	}
	for c := range Code(256) {
		name, want := documented[c]
		if c.Known() != want {
			t.Errorf("%d: Known = %t, the document says %q", c, c.Known(), name)
		}
		if !want {
			continue
		}
		if c.String() != name {
			t.Errorf("%d is called %q, the document says %q", c, c, name)
		}
		if got, ok := ParseCode(name); !ok || got != c {
			t.Errorf("ParseCode(%q) = %d, %t, want %d", name, got, ok, c)
		}
	}
}

func TestCodeWithoutAMeaningCountsAsInternal(t *testing.T) {
	for _, c := range []Code{9, 15, 31, 43, 99, MaxVarint} {
		if c.Known() || c.Meaning() != CodeInternal {
			t.Errorf("%d: Known = %t, Meaning = %s", c, c.Known(), c.Meaning())
		}
		if want := "code_" + strconv.FormatUint(uint64(c), 10); c.String() != want {
			t.Errorf("String = %q, want %q", c, want)
		}
	}
	if got := CodeIdle.Meaning(); got != CodeIdle {
		t.Errorf("Meaning of idle = %s", got)
	}
}

func TestParseCodeKnowsOnlyNames(t *testing.T) {
	for _, name := range []string{"", "code_99", "Protocol", "no_error ", "7"} {
		if c, ok := ParseCode(name); ok {
			t.Errorf("ParseCode(%q) = %s", name, c)
		}
	}
}

func TestFrameTypesAreThoseOfTheDocument(t *testing.T) {
	row := regexp.MustCompile(`(?m)^\| 0x([0-9a-f]{2}) \| ([A-Z]+) \|`)
	documented := map[FrameType]string{}
	for _, m := range row.FindAllStringSubmatch(readDocument(t), -1) {
		n, err := strconv.ParseUint(m[1], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		documented[FrameType(n)] = m[2]
	}
	if len(documented) < 10 {
		t.Fatalf("found %d frame types in the document", len(documented))
	}
	for n := range 256 {
		ft := FrameType(n)
		name, want := documented[ft]
		switch {
		case ft.Known() != want:
			t.Errorf("0x%02x: Known = %t, the document says %q", n, ft.Known(), name)
		case want && ft.String() != name:
			t.Errorf("0x%02x is called %s, the document says %s", n, ft, name)
		}
	}
}

func TestFrameTypeTellsItsClass(t *testing.T) {
	for ft, want := range map[FrameType][3]bool{
		TypePad:       {false, false, false},
		TypeChallenge: {false, false, true},
		TypeData:      {true, true, true},
		0x5f:          {false, true, false},
		0x9f:          {true, false, false},
		TypeDgram:     {true, false, true},
		0xdf:          {true, true, false},
		TypeGoAway:    {false, true, true},
		0x7f:          {false, true, true},
	} {
		if got := [3]bool{ft.StreamScoped(), ft.Reliable(), ft.Critical()}; got != want {
			t.Errorf("%s: stream-scoped, reliable, critical = %v, want %v", ft, got, want)
		}
	}
	if got := FrameType(0x05).String(); got != "frame 0x05" {
		t.Errorf("String = %q", got)
	}
}

// The tables of part 11, with the defaults that a gateway tells when nobody changed
// them.
func TestLimitsAreThoseOfTheDocument(t *testing.T) {
	_, part, _ := strings.Cut(readDocument(t), "\n## 11. Limits\n")
	part, _, _ = strings.Cut(part, "\n## ")
	l, p := DefaultLimits(), DefaultPadding()
	var sizes []string
	for _, size := range p.Sizes {
		sizes = append(sizes, thousands(uint64(size)))
	}
	want := map[string]string{
		"message":                       thousands(MaxMessage) + " bytes",
		"frame payload":                 thousands(MaxFramePayload) + " bytes",
		"HELLO":                         thousands(MaxHello) + " bytes",
		"access token":                  thousands(MaxToken) + " bytes",
		"TLV block / ext block of OPEN": thousands(MaxTLVBlock) + " / " + thousands(MaxOpenTLVs) + " bytes",
		"name in an address":            thousands(MaxName) + " bytes",
		"CLOSE reason":                  thousands(MaxReason) + " bytes",
		"agent":                         thousands(MaxAgent) + " bytes",
		"largest number":                "2^" + strconv.Itoa(bits.Len64(MaxVarint)) + " − 1",
		"HELLO after 101":               thousands(uint64(HelloTimeout.Seconds())) + " s",
		"OPENED or RESET after OPEN":    thousands(uint64(OpenedTimeout.Seconds())) + " s",
		"datagram":                      thousands(MaxDatagram) + " bytes",
		"knock's clock difference":      "15 min", // package knock has a test of its own
		"fronts in READY, gateways in GOAWAY, URL of one": thousands(MaxURLs) + ", " + thousands(MaxURL) + " bytes",
		"drain_ms":                            thousands(uint64(MaxDrain.Milliseconds())) + " ms",
		"messages, share of a padding policy": thousands(MaxPadMessages) + ", " + thousands(MaxPadShare) + " per cent",
		"sizes of one, each of them":          thousands(MaxPadSizes) + ", " + thousands(MinPadSize) + " to " + thousands(MaxPadSize) + " bytes",
		"spread of one":                       thousands(MaxPadSpread) + " bytes",
		"PAD before there is payload":         thousands(FreePadding) + " bytes",
		"frames of a padded handshake":        thousands(MinPadHandshake) + " to " + thousands(MaxPadHandshake) + " bytes",
		"messages, spread, share of padding":  fmt.Sprintf("%d, %d bytes, %d per cent", p.Messages, p.Spread, p.Share),
		"sizes of padding":                    strings.Join(sizes, ", ") + " bytes",
		"max_streams":                         thousands(l.MaxStreams),
		"max_udp":                             thousands(l.MaxUDP),
		"early_window":                        thousands(l.EarlyWindow) + " bytes",
		"open_burst, open_rate":               thousands(l.OpenBurst) + ", " + thousands(l.OpenRate) + " per second",
		"silence":                             thousands(uint64(l.Silence.Milliseconds())) + " ms",
		"resume_window":                       thousands(uint64(ResumeWindow.Milliseconds())) + " ms",
	}
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|$`).FindAllStringSubmatch(part, -1) {
		value, known := want[row[1]]
		if !known || value != row[2] {
			t.Errorf("%s: the document says %s, the code %q", row[1], row[2], value)
		}
		delete(want, row[1])
	}
	for name := range want {
		t.Errorf("the document has no row for %s", name)
	}
}

// thousands writes a number as the document does.
func thousands(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10)
	}
	return thousands(n/1000) + "," + strconv.FormatUint(1000+n%1000, 10)[1:]
}
