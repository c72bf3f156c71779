package wire

import "encoding/binary"

// SizeVarint returns how many bytes [AppendVarint] writes for v: 1, 2, 4 or 8.
func SizeVarint(v uint64) int {
	switch {
	case v < 1<<6:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<30:
		return 4
	default:
		return 8
	}
}

// AppendVarint appends v in the shortest form. A value over [MaxVarint] is a
// mistake of the caller; it is written as MaxVarint, so that what follows it
// stays readable.
func AppendVarint(dst []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(dst, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(dst, 1<<14|uint16(v))
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(dst, 2<<30|uint32(v))
	default:
		return binary.BigEndian.AppendUint64(dst, 3<<62|min(v, MaxVarint))
	}
}

// ConsumeVarint reads the varint at the front of b and tells how many bytes it
// has.
func ConsumeVarint(b []byte) (v uint64, n int, err error) {
	if len(b) == 0 {
		return 0, 0, malformed("varint missing")
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0, malformed("varint cut off")
	}
	switch n {
	case 1:
		return uint64(b[0]), 1, nil
	case 2:
		v = uint64(binary.BigEndian.Uint16(b)) &^ (3 << 14)
	case 4:
		v = uint64(binary.BigEndian.Uint32(b)) &^ (3 << 30)
	default:
		v = binary.BigEndian.Uint64(b) &^ (3 << 62)
	}
	switch {
	case SizeVarint(v) != n:
		return 0, 0, malformed("varint not in its shortest form")
	case v > MaxVarint:
		return 0, 0, malformed("varint over 2^53-1")
	}
	return v, n, nil
}

// parseVarint reads a varint that fills b.
func parseVarint(b []byte) (uint64, error) {
	v, n, err := ConsumeVarint(b)
	if err == nil && n != len(b) {
		err = malformed("bytes left over")
	}
	if err != nil {
		return 0, err
	}
	return v, nil
}
