package hostile

import (
	"context"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// boundless is a window as large as numbers go.
	boundless = 1 << 52

	// dataLen fills a frame.
	dataLen = wire.MaxFramePayload
)

// everything makes the gateway hold what it can, for as long as it lets us, and
// at most for the Duration.
func (a *attack) everything(ctx context.Context) {
	end := a.start.Add(a.spec.Duration)
	streams := a.limits.MaxStreams
	for n := range streams {
		mode := a.spec.Stall
		if n%2 == 1 {
			mode = a.spec.Download
		}
		open := wire.AppendOpen(nil, 2*n+1, wire.Open{Kind: wire.KindTCP, RecvWindow: boundless, Target: a.target, Early: []byte{mode}})
		if !a.write(open) {
			return
		}
		a.result.Sent++
	}
	if !a.wait(ctx, 500*time.Millisecond) { // most are open now
		return
	}

	if !a.upload(ctx, streams, a.start.Add(a.spec.Duration*2/3)) {
		return
	}

	// From now on nothing is read, and what asks for an answer does not end.
	a.deaf.Store(true)
	data := make([]byte, dataLen)
	var token [8]byte
	for n := streams; time.Now().Before(end); n++ {
		var message []byte
		for range 8 {
			token[0]++
			message = wire.AppendPing(message, token)
		}
		message = wire.AppendCredit(message, 3, boundless+n)
		message = wire.AppendOpen(message, 2*n+1, wire.Open{Kind: wire.KindTCP, RecvWindow: boundless, Target: a.target, Early: data[:dataLen/2]})
		message = wire.AppendFrame(message, wire.TypePad, 0, data)
		if !a.write(message) || !a.wait(ctx, 20*time.Millisecond) {
			break
		}
	}
	a.deaf.Store(false) // and hear what the gateway made of it
	a.wait(ctx, 500*time.Millisecond)
}

// upload fills every second stream up to the last byte of its credit, again and
// again as more is granted, until end or until none has been for a while. It
// reports whether the session goes on.
func (a *attack) upload(ctx context.Context, streams uint64, end time.Time) bool {
	const (
		patience = 20 // looks in vain
		look     = 20 * time.Millisecond
	)
	data := make([]byte, dataLen)
	sent := make(map[uint64]uint64)
	for vain := 0; vain < patience && time.Now().Before(end); vain++ {
		for n := uint64(0); n < streams; n += 2 {
			id := 2*n + 1
			sent[id] = max(sent[id], 1) // the early byte
			for credit := a.creditOf(id); sent[id] < credit; vain = 0 {
				piece := data[:min(credit-sent[id], dataLen)]
				if !a.write(wire.AppendData(nil, id, piece)) {
					return false
				}
				sent[id] += uint64(len(piece))
				a.result.Uploaded += int64(len(piece))
			}
		}
		if !a.wait(ctx, look) {
			return false
		}
	}
	a.result.Filled = time.Now().Before(end)
	return true
}

func (a *attack) creditOf(stream uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.credit[stream]
}

// wait waits, and reports whether the session goes on.
func (a *attack) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.over:
		return false
	case <-ctx.Done():
		return false
	}
}
