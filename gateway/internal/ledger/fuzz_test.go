package ledger

import (
	"bytes"
	"testing"
)

// What is read is what was written, and everything else is an error.
func FuzzRow(f *testing.F) {
	r := row(1, 2, 3, noon)
	p := placeOf(r)
	f.Add(p[:], r.value())
	f.Add(p[:35], r.value())
	f.Add(p[:], bytes.Repeat([]byte{0xff}, valueSize))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		p, r, err := parse(k, v)
		if err != nil {
			return
		}
		if !bytes.Equal(p[:], k) || !bytes.Equal(r.value(), v) {
			t.Errorf("%x = %x is read as %v = %+v", k, v, p, r)
		}
		if r.Up < 0 || r.Down < 0 || r.Sequence() < 0 {
			t.Errorf("%+v", r)
		}
	})
}
