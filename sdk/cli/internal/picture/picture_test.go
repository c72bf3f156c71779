package picture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"rsc.io/qr"

	"github.com/httvps/httvps/sdk/cli/internal/picture"
)

// link is as long as invitations with a pin are.
var link = "https://vpn.example.org:8443/k3jd84hfk3jd84hf/join#code=" + strings.Repeat("A7", 13) + ",pin=" + strings.Repeat("b_-", 14) + "c"

// photo draws the code of a text as a camera sees it: turned, not evenly lit, and with
// something around it.
func photo(tb testing.TB, text string, angle, light float64, dark, bright uint8) *image.Gray {
	tb.Helper()
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		tb.Fatal(err)
	}
	const module = 4
	side := (3*code.Size/2 + 16) * module
	drawn := image.NewGray(image.Rect(0, 0, side, side))
	sin, cos := math.Sincos(angle)
	middle, quiet := float64(side)/2, 4.0
	for y := range side {
		for x := range side {
			dx, dy := float64(x)-middle, float64(y)-middle
			u := (dx*cos+dy*sin)/module + float64(code.Size)/2
			v := (dy*cos-dx*sin)/module + float64(code.Size)/2
			shade := float64(bright) * 0.6 // the table it lies on
			if size := float64(code.Size); u >= -quiet && v >= -quiet && u < size+quiet && v < size+quiet {
				shade = float64(bright)
				if code.Black(int(math.Floor(u)), int(math.Floor(v))) {
					shade = float64(dark)
				}
			}
			drawn.SetGray(x, y, color.Gray{Y: uint8(shade * (1 - light*float64(x)/float64(side)))})
		}
	}
	return drawn
}

func pngOf(tb testing.TB, drawn image.Image) []byte {
	tb.Helper()
	var file bytes.Buffer
	if err := png.Encode(&file, drawn); err != nil {
		tb.Fatal(err)
	}
	return file.Bytes()
}

func TestCodesAreReadAsPeopleHaveThem(t *testing.T) {
	if got, err := picture.Read(pngOf(t, photo(t, link, 0, 0, 0, 255))); err != nil || got != link {
		t.Errorf("a PNG: %q, %v", got, err)
	}
	for name, drawn := range map[string]image.Image{
		"a screenshot":           photo(t, link, 0, 0, 0, 255),
		"upside down":            photo(t, link, math.Pi, 0, 0, 255),
		"turned a little":        photo(t, link, 0.1, 0, 0, 255),
		"turned a lot":           photo(t, link, 0.7, 0, 0, 255),
		"in a shadow":            photo(t, link, 0.05, 0.5, 40, 230),
		"a pale print":           photo(t, link, 0, 0.2, 110, 200),
		"light on a dark ground": photo(t, link, 0, 0, 255, 0),
	} {
		var photograph bytes.Buffer
		if err := jpeg.Encode(&photograph, drawn, &jpeg.Options{Quality: 60}); err != nil {
			t.Fatal(err)
		}
		if got, err := picture.Read(photograph.Bytes()); err != nil || got != link {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// The finder misses a few codes in a hundred in one size of a picture.
func TestOfManyLinksNoneIsMissed(t *testing.T) {
	draw := rand.New(rand.NewPCG(5, 5))
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[draw.IntN(32)])
		}
		return b.String()
	}
	for range 40 {
		link := "https://vpn.example.org/" + text(16) + "/join#code=" + text(26) + ",pin=" + text(43)
		if got, err := picture.Read(pngOf(t, photo(t, link, 0, 0.2, 20, 230))); err != nil || got != link {
			t.Errorf("%s: %q, %v", link, got, err)
		}
	}
}

// huge is the beginning of a PNG of so many pixels, with a right checksum.
func huge(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("IHDR"), width), height)
	header = append(header, 16, 6, 0, 0, 0)
	file := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), 13)
	return binary.BigEndian.AppendUint32(append(file, header...), crc32.ChecksumIEEE(header))
}

func TestWhatIsNoCodeIsAnErrorThatSaysWhy(t *testing.T) {
	whole := pngOf(t, photo(t, link, 0, 0, 0, 255))
	empty := pngOf(t, image.NewGray(image.Rect(0, 0, 300, 300)))
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"a text":              {[]byte(link), "neither a PNG nor a JPEG"},
		"nothing":             {nil, "neither a PNG nor a JPEG"},
		"a picture cut short": {whole[:len(whole)/2], "damaged"},
		"its first bytes":     {whole[:10], "damaged"},
		"a bomb":              {huge(1<<31-1, 1<<31-1), "damaged"},
		"a long bomb":         {huge(1<<31-1, 1), "cut out the code"},
		"a bit too large":     {huge(5001, 5000), "cut out the code"},
		"a large file":        {append(whole, make([]byte, picture.MaxBytes)...), "over"},
		"an empty page":       {empty, picture.ErrNone.Error()},
		"one pixel":           {pngOf(t, image.NewGray(image.Rect(0, 0, 1, 1))), picture.ErrNone.Error()},
	} {
		got, err := picture.Read(tc.file)
		if err == nil || got != "" || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

// FuzzRead wants no panic and no work without bound, whatever a picture says.
func FuzzRead(f *testing.F) {
	small, err := qr.Encode("https://a/join#code=b", qr.L)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small.PNG())
	f.Add(pngOf(f, photo(f, "x", 0.3, 0.3, 20, 240)))
	var photograph bytes.Buffer
	if err := jpeg.Encode(&photograph, photo(f, "x", 0, 0, 0, 255), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(photograph.Bytes())
	f.Add(huge(100, 100))
	f.Fuzz(func(t *testing.T, file []byte) {
		if size, _, err := image.DecodeConfig(bytes.NewReader(file)); err == nil && size.Width*size.Height > 1<<20 {
			t.Skip("the bound is another test's")
		}
		if text, err := picture.Read(file); err != nil && text != "" {
			t.Errorf("%q with %v", text, err)
		}
	})
}

// FuzzModules puts whatever bits there may be where those of a code are, so that what
// is behind the finder patterns is met, too.
func FuzzModules(f *testing.F) {
	f.Add([]byte{0xff, 0x00, 0x12}, uint8(25))
	f.Fuzz(func(t *testing.T, flips []byte, seed uint8) {
		code, err := qr.Encode(strings.Repeat("a", int(seed)), qr.L)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range flips {
			if at := 9*code.Stride + i; at < len(code.Bitmap) {
				code.Bitmap[at] ^= b
			}
		}
		if _, err := picture.Read(code.PNG()); err != nil && !errors.Is(err, picture.ErrNone) {
			t.Error(err)
		}
	})
}
