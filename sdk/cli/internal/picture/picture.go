// Package picture reads the QR code in a picture.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	_ "image/jpeg" // photographs
	_ "image/png"  // screenshots, and what httvpsctl writes

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

const (
	// MaxBytes bounds a picture's file, maxPixels what it is unpacked to: a few bytes
	// can stand for gigabytes.
	MaxBytes  = 32 << 20
	maxPixels = 25_000_000
)

// ErrNone says that no code was found in a picture.
var ErrNone = errors.New("there is no QR code in the picture that can be read; take one that is sharp, with the whole code and some of the white around it")

// Is reports whether these bytes begin a picture that Read takes.
func Is(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\x89PNG\r\n\x1a\n")) || bytes.HasPrefix(text, []byte("\xff\xd8\xff"))
}

// Read returns the text of the QR code in a PNG or JPEG picture. Errors do not repeat
// it.
func Read(file []byte) (string, error) {
	if len(file) > MaxBytes {
		return "", fmt.Errorf("the picture has over %d bytes", MaxBytes)
	}
	if !Is(file) {
		return "", errors.New("neither a PNG nor a JPEG picture")
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return "", fmt.Errorf("the picture is damaged: %w", err)
	}
	if size.Width < 1 || size.Height < 1 || size.Width > maxPixels/size.Height {
		return "", fmt.Errorf("the picture has %d × %d pixels, want at most %d million: cut out the code", size.Width, size.Height, maxPixels/1_000_000)
	}
	picture, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return "", fmt.Errorf("the picture is damaged: %w", err)
	}
	return find(picture)
}

// The sizes of the pictures that are looked at, in per cent of one whose longer side has
// usual pixels, or fewer if there are fewer: a finder that misses a code in one of them,
// as it does with a few in a hundred, sees it in another.
const usual = 1000

var sizes = []int{100, 150, 70, 125, 50}

// find looks at a picture as it is, if it is nothing but a code, then at pictures of it
// in several sizes, dark on light and light on dark.
func find(picture image.Image) (string, error) {
	whole := gray(picture)
	clean := gozxing.NewGlobalHistgramBinarizer(gozxing.NewLuminanceSourceFromImage(whole))
	if text, ok := decode(clean, gozxing.DecodeHintType_PURE_BARCODE); ok {
		return text, nil
	}
	longer := max(whole.Rect.Dx(), whole.Rect.Dy())
	for _, percent := range sizes {
		scaled := scale(whole, min(longer, usual)*percent/100)
		light := gozxing.NewLuminanceSourceFromImage(scaled)
		for _, source := range []gozxing.LuminanceSource{light, light.Invert()} {
			if text, ok := decode(gozxing.NewHybridBinarizer(source), gozxing.DecodeHintType_TRY_HARDER); ok {
				return text, nil
			}
		}
	}
	return "", ErrNone
}

// gray is a picture without its colours. What is not opaque is on white.
func gray(picture image.Image) *image.Gray {
	whole := image.NewGray(image.Rectangle{Max: picture.Bounds().Size()})
	draw.Draw(whole, whole.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(whole, whole.Rect, picture, picture.Bounds().Min, draw.Over)
	return whole
}

// scale is a picture whose longer side has so many pixels, at least one. Each pixel is
// the average of those it stands for.
func scale(from *image.Gray, longer int) *image.Gray {
	width, height := from.Rect.Dx(), from.Rect.Dy()
	now := max(width, height)
	if longer == now {
		return from
	}
	to := image.NewGray(image.Rect(0, 0, max(1, width*longer/now), max(1, height*longer/now)))
	for y := range to.Rect.Dy() {
		top, bottom := part(y, to.Rect.Dy(), height)
		for x := range to.Rect.Dx() {
			left, right := part(x, to.Rect.Dx(), width)
			sum := 0
			for row := top; row < bottom; row++ {
				for _, light := range from.Pix[row*from.Stride+left : row*from.Stride+right] {
					sum += int(light)
				}
			}
			to.Pix[y*to.Stride+x] = uint8(sum / ((bottom - top) * (right - left)))
		}
	}
	return to
}

// part is which of whole pixels the i-th of so many stands for: one at least.
func part(i, of, whole int) (from, to int) {
	from = i * whole / of
	return from, max(from+1, (i+1)*whole/of)
}

func decode(binarizer gozxing.Binarizer, hint gozxing.DecodeHintType) (text string, ok bool) {
	bitmap, err := gozxing.NewBinaryBitmap(binarizer)
	if err != nil {
		return "", false
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{hint: true})
	if err != nil {
		return "", false
	}
	return result.GetText(), true
}
