package httvpstest

import (
	"crypto/ed25519"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// live is a session with what it rests on, docs/03, part 8.5.
type live struct {
	service *Service
	gateway int // its number
	ready   wire.Ready
	hello   wire.Hello

	mu      sync.Mutex // guards the following fields
	session *mux.Session
	over    *time.Timer // ends it when the latest token is over; nil: never
}

// begin ends the session when its token is over, where that is wanted.
func (l *live) begin(session *mux.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
	if until := l.ready.AuthDeadline; !until.IsZero() {
		l.over = time.AfterFunc(time.Until(until), func() { session.Close(wire.CodeTokenExpired, "") })
	}
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil {
		l.over.Stop()
	}
}

// reauth answers a device that shows another token.
func (l *live) reauth(r wire.Reauth) {
	s := l.service
	s.mu.Lock()
	s.reauths++
	g, known := s.tokens[r.AccessToken]
	mine := known && g.device == s.tokens[l.hello.AccessToken].device
	s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := wire.Auth{Deadline: l.ready.AuthDeadline}
	switch {
	case !ed25519.Verify(l.hello.DeviceKey[:], r.SigningInput(l.ready.SessionID), r.Signature[:]), !known:
		answer.Code = wire.CodeInvalidToken
	case !mine:
		answer.Code = wire.CodeDeviceMismatch
	case s.opts.JudgeToken != nil:
		answer.Code = s.opts.JudgeToken()
	}
	if answer.Code == wire.CodeNoError && l.over != nil {
		l.ready.AuthDeadline, answer.Deadline = g.expires, g.expires
		l.over.Reset(time.Until(g.expires))
	}
	_ = l.session.AnswerReauth(answer) // or it is over
}

// expiry is when a token is over.
func (s *Service) expiry(token string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token].expires
}

// Reauths is how many tokens the gateways were shown for sessions that live.
func (s *Service) Reauths() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reauths
}

// SetLimits has the gateways allow all sessions other limits, as change leaves them.
func (s *Service) SetLimits(change func(*wire.SessionTerms)) {
	for _, l := range s.all() {
		terms := wire.SessionTerms{Limits: l.ready.Limits, Deadline: l.ready.Deadline}
		change(&terms)
		_ = l.session.SetTerms(terms) // or it is over
	}
}

// Notify has the gateways tell all devices what is about to happen to their sessions.
func (s *Service) Notify(n wire.Notice) {
	for _, l := range s.all() {
		_ = l.session.Notify(n) // or it is over
	}
}

func (s *Service) all() []*live {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*live, 0, len(s.sessions))
	for _, l := range s.sessions {
		list = append(list, l)
	}
	return list
}
