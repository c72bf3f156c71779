package muxtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Malformed is an invalid vector of sdk/testvectors: bytes that end the session,
// with the code of the CLOSE that answers them.
type Malformed struct {
	Name  string
	Bytes []byte
	Kind  wire.Kind // of the flow that a DGRAM is on
	Code  wire.Code
}

// Type is that of the vector's first frame.
func (m Malformed) Type() wire.FrameType {
	if len(m.Bytes) == 0 {
		return wire.TypePad
	}
	return wire.FrameType(m.Bytes[0])
}

// Stream is the id that a stream has to have for the vector's fault to be found; 1
// where the vector names none.
func (m Malformed) Stream() uint64 {
	if !m.Type().StreamScoped() {
		return 1
	}
	id, _, err := wire.ConsumeVarint(m.Bytes[1:])
	if err != nil || id%2 == 0 {
		return 1
	}
	return id
}

// MalformedVectors reads those vectors of the files in dir whose error ends the
// session.
func MalformedVectors(tb testing.TB, dir string, files ...string) []Malformed {
	tb.Helper()
	var all []Malformed
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // a test names it
		if err != nil {
			tb.Fatal(err)
		}
		var vectors []struct {
			Name, Hex, Error, Ends string
			Kind                   wire.Kind
		}
		if err := json.Unmarshal(text, &vectors); err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
		for _, v := range vectors {
			if v.Error == "" || v.Ends == "stream" {
				continue
			}
			code, known := wire.ParseCode(v.Error)
			b, err := unhex(v.Hex)
			if !known || err != nil {
				tb.Fatalf("%s: %q: error %q, %v", file, v.Name, v.Error, err)
			}
			all = append(all, Malformed{Name: v.Name, Bytes: b, Kind: v.Kind, Code: code})
		}
	}
	return all
}

// unhex reads the notation of the vectors: hex with spaces, and "00*16" for 16 zero
// bytes.
func unhex(text string) ([]byte, error) {
	var out []byte
	for word := range strings.FieldsSeq(text) {
		digits, times, repeated := strings.Cut(word, "*")
		b, err := hex.DecodeString(digits)
		n := 1
		if err == nil && repeated {
			n, err = strconv.Atoi(times)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, bytes.Repeat(b, n)...)
	}
	return out, nil
}
