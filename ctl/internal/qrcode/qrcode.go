// Package qrcode draws QR codes of links, for a terminal and as a picture.
package qrcode

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"

	"rsc.io/qr"
)

const (
	// quiet is how many light modules a code has around it (ISO/IEC 18004).
	quiet = 4

	// scale is how many pixels a module of a picture has on each side.
	scale = 8
)

// Code is the QR code of a text.
type Code struct{ modules *qr.Code }

// New returns the code of a text of at most some 2,300 bytes. A screen is neither
// torn nor dirty, but paper may be: about 15 % of it may be lost.
func New(text string) (Code, error) {
	modules, err := qr.Encode(text, qr.M)
	if err != nil {
		return Code{}, fmt.Errorf("draw a QR code: %w", err)
	}
	return Code{modules}, nil
}

// black on white whatever colours a terminal has: many readers take no others.
const (
	paint = "\x1b[30;107m"
	reset = "\x1b[0m"
)

// String is the code for a terminal: two modules in a character, one above the
// other.
func (c Code) String() string {
	var b strings.Builder
	for y := -quiet; y < c.modules.Size+quiet; y += 2 {
		b.WriteString(paint)
		for x := -quiet; x < c.modules.Size+quiet; x++ {
			switch upper, lower := c.modules.Black(x, y), c.modules.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(reset + "\n")
	}
	return b.String()
}

// WritePNG writes the code as a picture.
func (c Code) WritePNG(w io.Writer) error {
	side := (c.modules.Size + 2*quiet) * scale
	picture := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			if c.modules.Black(x/scale-quiet, y/scale-quiet) {
				picture.SetColorIndex(x, y, 1)
			}
		}
	}
	return png.Encode(w, picture)
}
