package upstream

import (
	"context"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// heard listens to what name servers answer to one look-up: package net's resolver
// does not say for how long its answers are good.
type heard struct {
	mu      sync.Mutex // guards the following fields
	least   uint32     // in seconds, of the records that came
	answers bool       // at least one did
	unheard bool       // and so did some that could not be listened to
}

type heardKey struct{}

func withHeard(ctx context.Context) (context.Context, *heard) {
	h := &heard{least: math.MaxUint32}
	return context.WithValue(ctx, heardKey{}, h), h
}

// heardOn returns conn, on which the look-up of ctx is told what comes.
func heardOn(ctx context.Context, conn net.Conn) net.Conn {
	h, _ := ctx.Value(heardKey{}).(*heard)
	if h == nil {
		return conn
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		return &heardConn{UDPConn: udp, heard: h}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unheard = true // a stream, for what a datagram does not hold
	return conn
}

// heardConn is a connection to a name server. It stays one of datagrams, which is how
// package net knows what to speak.
type heardConn struct {
	*net.UDPConn
	heard *heard
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.UDPConn.Read(p)
	c.heard.hear(p[:n])
	return n, err
}

// hear takes down how long the records in an answer are good. Who forges one can
// make that time shorter, and nothing else.
func (h *heard) hear(text []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(text); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		record, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		h.answers, h.least = true, min(h.least, record.TTL) // of aliases on the way, too
	}
}

// life is how long what came is good: 0 where nobody said, as with what the host's
// own file of names says.
func (h *heard) life() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.answers || h.unheard {
		return 0
	}
	return min(time.Duration(h.least)*time.Second, mostNameLife)
}
