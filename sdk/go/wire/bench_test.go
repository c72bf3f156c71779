package wire

import "testing"

func BenchmarkAppendData(b *testing.B) {
	buf, data := make([]byte, 0, MaxMessage), make([]byte, DataPayload)
	b.SetBytes(DataPayload)
	for b.Loop() {
		buf = AppendData(buf[:0], 12345, data)
	}
}

func BenchmarkAppendDataHeader(b *testing.B) {
	buf := make([]byte, 0, MaxHeader)
	for b.Loop() {
		buf = AppendFrameHeader(buf[:0], TypeData, 12345, DataPayload)
	}
}

func BenchmarkParseData(b *testing.B) {
	msg := AppendData(nil, 12345, make([]byte, DataPayload))
	b.SetBytes(DataPayload)
	for b.Loop() {
		if _, _, err := ConsumeFrame(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendCredit(b *testing.B) {
	buf := make([]byte, 0, MaxHeader+8)
	for b.Loop() {
		buf = AppendCredit(buf[:0], 12345, 1<<40)
	}
}

func BenchmarkParseCredit(b *testing.B) {
	msg := AppendCredit(nil, 12345, 1<<40)
	for b.Loop() {
		f, _, err := ConsumeFrame(msg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseCredit(f.Payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFrames reads a message of 64 KiB with four full DATA frames.
func BenchmarkFrames(b *testing.B) {
	var msg []byte
	for range 4 {
		msg = AppendData(msg, 12345, make([]byte, DataPayload))
	}
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range Frames(msg) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
