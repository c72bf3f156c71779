// Package picture reads the QR code in a picture.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
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

// find looks at a picture in the ways that succeed with different ones: by
// neighbourhoods, for uneven light; with one threshold, for small and clean ones; and
// both light on dark.
func find(picture image.Image) (string, error) {
	light := gozxing.NewLuminanceSourceFromImage(picture)
	for _, source := range []gozxing.LuminanceSource{light, light.Invert()} {
		for _, binarizer := range []gozxing.Binarizer{gozxing.NewHybridBinarizer(source), gozxing.NewGlobalHistgramBinarizer(source)} {
			if text, ok := decode(binarizer); ok {
				return text, nil
			}
		}
	}
	return "", ErrNone
}

func decode(binarizer gozxing.Binarizer) (text string, ok bool) {
	bitmap, err := gozxing.NewBinaryBitmap(binarizer)
	if err != nil {
		return "", false
	}
	hints := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	if err != nil {
		return "", false
	}
	return result.GetText(), true
}
