package qrcode_test

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/makiuchi-d/gozxing"
	zxing "github.com/makiuchi-d/gozxing/qrcode"

	"github.com/httvps/httvps/ctl/internal/qrcode"
)

// link is as long as invitations with a pin are.
var link = "https://vpn.example.org:8443/k3jd84hfk3jd84hf/join#code=" + strings.Repeat("A7", 13) + ",pin=" + strings.Repeat("b_-", 14) + "c"

// read is what another library sees in a picture.
func read(t *testing.T, picture image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		t.Fatal(err)
	}
	result, err := zxing.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		t.Fatalf("nothing is found: %v", err)
	}
	return result.GetText()
}

func TestAPictureIsReadAsTheLink(t *testing.T) {
	code, err := qrcode.New(link)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := code.WritePNG(&text); err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(&text)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, picture); got != link {
		t.Errorf("read %q", got)
	}
}

// The terminal is drawn as one does that is black on white, and photographed.
func TestWhatATerminalShowsIsReadAsTheLink(t *testing.T) {
	code, err := qrcode.New(link)
	if err != nil {
		t.Fatal(err)
	}
	const size = 6
	lines := strings.Split(strings.TrimSuffix(code.String(), "\n"), "\n")
	var picture *image.Gray
	for row, line := range lines {
		line, painted := strings.CutPrefix(line, "\x1b[30;107m")
		line, reset := strings.CutSuffix(line, "\x1b[0m")
		if !painted || !reset {
			t.Fatalf("line %d has colours of its own: %q", row, line)
		}
		if picture == nil {
			picture = image.NewGray(image.Rect(0, 0, utf8.RuneCountInString(line)*size, 2*len(lines)*size))
		}
		column := 0
		for _, c := range line {
			for half, black := range []bool{c == '█' || c == '▀', c == '█' || c == '▄'} {
				shade := color.Gray{Y: 255}
				if black {
					shade.Y = 0
				}
				for y := range size {
					for x := range size {
						picture.SetGray(column*size+x, (2*row+half)*size+y, shade)
					}
				}
			}
			column++
		}
		if column > 80 {
			t.Fatalf("line %d has %d columns", row, column)
		}
	}
	if got := read(t, picture); got != link {
		t.Errorf("read %q", got)
	}
	if first := lines[0] + lines[1]; strings.ContainsAny(first, "█▀▄") {
		t.Errorf("no quiet zone: %q", first)
	}
}

func TestATextThatFitsInNoCodeIsAnError(t *testing.T) {
	if _, err := qrcode.New(strings.Repeat("x", 3000)); err == nil {
		t.Error("a code of 3,000 bytes")
	}
}
