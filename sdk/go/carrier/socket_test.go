package carrier

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// TLS answers some of what it reads by itself (alerts, key updates), beside whoever
// writes: no record may get lost or into another.
func TestRecordsStayWholeThoughTwoWrite(t *testing.T) {
	near, far := net.Pipe()
	s := newSocket(near)
	const records, size = 2000, 100
	var wg sync.WaitGroup
	wg.Go(func() { // the writer
		for range records / 4 {
			s.hold()
			for range 4 {
				if _, err := s.Write(bytes.Repeat([]byte{'w'}, size)); err != nil {
					t.Error(err)
				}
			}
			if err := s.flush(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() { // the reader
		for range records {
			if _, err := s.Write(bytes.Repeat([]byte{'r'}, size)); err != nil {
				t.Error(err)
			}
		}
	})
	done := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(far)
		done <- all
	}()
	wg.Wait()
	if err := s.flush(); err != nil {
		t.Error(err)
	}
	_ = near.Close()
	all := <-done
	if len(all) != 2*records*size {
		t.Fatalf("%d bytes of %d", len(all), 2*records*size)
	}
	for r := range 2 * records {
		if rec := all[r*size : (r+1)*size]; !bytes.Equal(rec, bytes.Repeat(rec[:1], size)) {
			t.Fatalf("record %d is not whole", r)
		}
	}
}

// flaky cuts its first write off and would take all others.
type flaky struct {
	net.Conn
	writes int
}

var errCut = errors.New("cut off")

func (f *flaky) Write(p []byte) (int, error) {
	if f.writes++; f.writes == 1 {
		return len(p) / 2, errCut
	}
	return len(p), nil
}

func TestNothingFollowsAWriteThatWasCutOff(t *testing.T) {
	conn := &flaky{}
	s := &socket{Conn: conn}
	s.hold()
	if _, err := s.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(); !errors.Is(err, errCut) {
		t.Errorf("flush = %v", err)
	}
	if _, err := s.Write([]byte("two")); !errors.Is(err, errCut) || conn.writes != 1 {
		t.Errorf("Write = %v, %d writes", err, conn.writes)
	}
}
