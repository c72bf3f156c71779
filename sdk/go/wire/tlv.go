package wire

import (
	"strconv"
	"time"
)

// A tlvReader walks over a TLV block and stops at the entries whose keys are in
// known. It skips unknown odd keys and ends with an error at whatever the
// document calls one.
type tlvReader struct {
	block []byte
	known keySet

	key        uint64 // of the current entry, like the next three
	value      []byte
	start, end int // in block, the key and the length included

	seen keySet // keys handed out so far
	last uint64 // key of the entry before, skipped ones included
	err  error
}

// readTLVs returns a reader of block, which has no limit but limit.
func readTLVs(block []byte, limit int, known keySet) tlvReader {
	r := tlvReader{block: block, known: known}
	if len(block) > limit {
		r.err = tooLong("TLV block over its limit")
	}
	return r
}

// next moves to the next entry with a known key and reports whether there is
// one. It returns false at the end of the block and at an error.
func (r *tlvReader) next() bool {
	for r.err == nil && r.end < len(r.block) {
		if r.err = r.step(); r.err == nil && r.known.has(r.key) {
			r.seen |= keys(r.key)
			return true
		}
	}
	return false
}

func (r *tlvReader) step() error {
	pos := r.end
	key, n, err := ConsumeVarint(r.block[pos:])
	if err != nil {
		return within("TLV key", err)
	}
	switch {
	case pos > 0 && key <= r.last:
		return malformed("TLV keys not ascending")
	case key%2 == 0 && !r.known.has(key):
		return unsupported("unknown TLV key " + strconv.FormatUint(key, 10))
	}
	r.start, pos = pos, pos+n
	length, n, err := ConsumeVarint(r.block[pos:])
	if err != nil {
		return within("TLV length", err)
	}
	pos += n
	rest := r.block[pos:]
	if length > uint64(len(rest)) {
		return malformed("TLV value cut off")
	}
	r.key, r.last = key, key
	r.value = rest[:length:length]
	r.end = pos + len(r.value)
	return nil
}

// require returns an error unless every key of want was in the block.
func (r *tlvReader) require(want keySet) error {
	for key := range uint64(64) {
		if want.has(key) && !r.seen.has(key) {
			return malformed("TLV key " + strconv.FormatUint(key, 10) + " missing")
		}
	}
	return nil
}

// checkTLVs reads a block in which no key has a meaning yet.
func checkTLVs(block []byte, limit int) error {
	if len(block) == 0 {
		return nil
	}
	r := readTLVs(block, limit, 0)
	r.next()
	return r.err
}

// A keySet is a set of TLV keys below 64.
type keySet uint64

func keys(list ...uint64) (s keySet) {
	for _, key := range list {
		s |= 1 << key
	}
	return s
}

func (s keySet) has(key uint64) bool { return key < 64 && s&(1<<key) != 0 }

func appendTLV(dst []byte, key uint64, value []byte) []byte {
	dst = AppendVarint(dst, key)
	dst = AppendVarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func appendTLVNumber(dst []byte, key, v uint64) []byte {
	dst = AppendVarint(dst, key)
	dst = append(dst, byte(SizeVarint(v)))
	return AppendVarint(dst, v)
}

// copyFixed copies a value that has exactly the size of dst.
func copyFixed(dst, value []byte) error {
	if len(value) != len(dst) {
		return malformed("is " + strconv.Itoa(len(value)) + " bytes, not " + strconv.Itoa(len(dst)))
	}
	copy(dst, value)
	return nil
}

// parseTime reads unix milliseconds.
func parseTime(value []byte) (time.Time, error) {
	ms, err := parseVarint(value)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
}

// millis returns t in unix milliseconds, and 0 for what lies before them.
func millis(t time.Time) uint64 {
	return uint64(max(t.UnixMilli(), 0))
}
