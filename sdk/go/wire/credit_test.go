package wire

import "testing"

// A creditTrace is one of sdk/testvectors/credit.json: what happens in one direction
// of one stream, from its OPEN on. The README beside it says what its fields are.
type creditTrace struct {
	Name        string       `json:"name"`
	To          string       `json:"to"`
	EarlyWindow uint64       `json:"early_window"`
	Window      uint64       `json:"window"`
	Early       uint64       `json:"early"`
	Steps       []creditStep `json:"steps"`
	Error       string       `json:"error"`
}

// A creditStep has one of the first five, and what is true after it.
type creditStep struct {
	Opened  *uint64 `json:"opened"`
	Send    *uint64 `json:"send"`
	Fin     *uint64 `json:"fin"`
	Consume *uint64 `json:"consume"`
	Credit  *uint64 `json:"credit"`

	Limit uint64 `json:"limit"`
	Sent  uint64 `json:"sent"`
	Held  uint64 `json:"held"`
}

// A creditModel follows the rules of parts 6 and 7 of the document by nothing but
// their text. No endpoint is made of it: it keeps the traces from contradicting
// themselves.
type creditModel struct {
	toGateway             bool
	earlyWindow           uint64
	limit, sent, consumed uint64
	opened, ended         bool
}

func (m *creditModel) open(tr creditTrace) Code {
	m.toGateway, m.earlyWindow = tr.To == "gateway", tr.EarlyWindow
	m.limit = tr.Window
	if m.toGateway {
		m.limit = tr.EarlyWindow
	}
	return m.send(tr.Early)
}

func (m *creditModel) step(s creditStep) Code {
	switch {
	case s.Opened != nil:
		return m.confirm(*s.Opened)
	case s.Consume != nil:
		m.consumed += *s.Consume
		return CodeNoError
	case s.Credit != nil:
		if m.toGateway && !m.opened {
			return CodeProtocol
		}
		m.limit = max(m.limit, *s.Credit)
		return CodeNoError
	}
	bytes := s.Send
	if s.Fin != nil {
		bytes = s.Fin
	}
	if m.ended || !m.toGateway && !m.opened {
		return CodeProtocol
	}
	m.ended = s.Fin != nil
	return m.send(*bytes)
}

func (m *creditModel) confirm(window uint64) Code {
	if m.opened || window < m.earlyWindow {
		return CodeProtocol
	}
	m.opened = true
	if m.toGateway {
		m.limit = window
	}
	return CodeNoError
}

func (m *creditModel) send(bytes uint64) Code {
	if m.sent += bytes; m.sent > m.limit {
		return CodeFlowControl
	}
	return CodeNoError
}

// held is what the receiver has to have set aside.
func (m *creditModel) held() uint64 {
	if m.ended {
		return m.sent - m.consumed
	}
	return m.limit - m.consumed
}

func TestCreditTracesFollowTheDocument(t *testing.T) {
	for _, tr := range load[creditTrace](t, "credit.json") {
		t.Run(tr.Name, func(t *testing.T) {
			if tr.To != "client" && tr.To != "gateway" {
				t.Fatalf("to = %q", tr.To)
			}
			var m creditModel
			code := m.open(tr)
			for i, s := range tr.Steps {
				if code != CodeNoError {
					t.Fatalf("%s before step %d", code, i)
				}
				actions := 0
				for _, a := range []*uint64{s.Opened, s.Send, s.Fin, s.Consume, s.Credit} {
					if a != nil {
						actions++
					}
				}
				if actions != 1 {
					t.Fatalf("step %d does %d things", i, actions)
				}
				code = m.step(s)
				if code != CodeNoError {
					continue
				}
				if s.Limit != m.limit || s.Sent != m.sent || s.Held != m.held() || m.consumed > m.sent {
					t.Errorf("step %d: limit %d, sent %d, held %d, want %d, %d, %d", i, s.Limit, s.Sent, s.Held, m.limit, m.sent, m.held())
				}
			}
			want := CodeNoError
			if tr.Error != "" {
				want, _ = ParseCode(tr.Error)
			}
			if code != want {
				t.Errorf("ends with %s, want %s", code, want)
			}
		})
	}
}
