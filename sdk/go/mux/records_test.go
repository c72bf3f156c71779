package mux_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// recorder is a carrier that notes how long its messages are.
type recorder struct {
	*muxtest.End
	mu    sync.Mutex
	sizes []int
}

func (r *recorder) WriteReserved(buf []byte) error {
	r.mu.Lock()
	r.sizes = append(r.sizes, len(buf)-mux.Headroom)
	r.mu.Unlock()
	return r.End.WriteReserved(buf)
}

// Together with its WebSocket header (RFC 6455, 5.2), each message of a bulk stream
// fills a TLS record of 16,384 bytes (docs/03, part 11).
func TestMessagesOfABulkStreamFillTLSRecords(t *testing.T) {
	for _, id := range []uint64{1, 63, 65, 16383, 16385, 1<<30 + 1} {
		for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
			t.Run(fmt.Sprintf("%s, stream %d", name, id), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ours, theirs := muxtest.Pipe()
					carrier := &recorder{End: ours}
					s := mux.New(carrier, mux.Config{Role: role, Limits: wire.DefaultLimits()})
					ended := run(t, s)
					peer := muxtest.NewPeer(t, theirs)
					st := openAs(t, s, peer, id)
					header := 4
					if role == mux.Client {
						header = 8 // with its mask
					}
					go func() { _, _ = st.ReadFrom(zeros{}) }()
					for total := 0; total < 4<<20; {
						total += len(peer.Want(wire.TypeData, id))
					}
					s.Close(wire.CodeNoError, "")
					peer.Close()
					<-ended
					carrier.mu.Lock()
					defer carrier.mu.Unlock()
					sizes := carrier.sizes[:len(carrier.sizes)-1] // the last is CLOSE, or was cut off
					short := 0
					for i, size := range sizes {
						if i > 10 && size+header != 16<<10 {
							short++
						}
					}
					if short > 0 || len(sizes) < 200 {
						t.Errorf("%d of %d messages do not fill a record: %v …", short, len(sizes), sizes[:20])
					}
				})
			})
		}
	}
}

// openAs opens a stream with this id, without bounds on what may be sent.
func openAs(t *testing.T, s *mux.Session, peer *muxtest.Peer, id uint64) *mux.Stream {
	t.Helper()
	if s.Role() == mux.Gateway {
		peer.Send(wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 40, Target: target}))
		st := mustAccept(t, s)
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		peer.WantOpened(id)
		return st
	}
	if id > 1 {
		s.SkipIDs(id - 2)
	}
	opened := make(chan *mux.Stream, 1)
	go func() {
		st, err := s.Open(t.Context(), target)
		if err != nil {
			t.Error(err)
		}
		opened <- st
	}()
	peer.WantOpen(id)
	peer.Send(wire.AppendOpened(nil, id, wire.Opened{RecvWindow: 1 << 40}))
	return <-opened
}

// A message that is put together of many frames fits a record, too.
func TestComposedMessagesFitTLSRecords(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := muxtest.Pipe()
				carrier := &recorder{End: ours}
				s := mux.New(carrier, mux.Config{Role: role, Limits: wire.DefaultLimits()})
				ended := run(t, s)
				peer := muxtest.NewPeer(t, theirs)
				var streams []*mux.Stream
				for i := range uint64(40) {
					streams = append(streams, openAs(t, s, peer, 2*i+1))
				}
				for _, st := range streams {
					go func() {
						for n := 1; ; n = n*5%2003 + 1 {
							_ = st.SetWriteDeadline(time.Now().Add(time.Hour))
							if _, err := st.Write(make([]byte, n)); err != nil {
								return
							}
						}
					}()
				}
				for range 2000 {
					peer.Next()
				}
				s.Close(wire.CodeNoError, "")
				peer.Close()
				<-ended
				carrier.mu.Lock()
				defer carrier.mu.Unlock()
				for _, size := range carrier.sizes {
					if size+8 > 16<<10 {
						t.Fatalf("a message of %d bytes", size)
					}
				}
			})
		})
	}
}
