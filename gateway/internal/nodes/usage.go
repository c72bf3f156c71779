package nodes

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// MaxUsage is how many counters one report has.
const MaxUsage = 1000

// Usage is what a session has moved since it began in a start of the gateway.
type Usage struct {
	Boot, Session [16]byte
	Sequence      int64 // grows with the counters
	Up, Down      int64 // bytes
	At            time.Time
}

// UsageAnswer says what became of a report.
type UsageAnswer struct {
	// Settled are the positions in the report of what need not be told again.
	Settled []int
	// Refused are those of them that the control plane does not take, by its code.
	Refused map[int]string
}

// counter names a session in a start of a gateway, as the control plane writes it.
type counter struct {
	BootID    string `json:"boot_id"`
	SessionID string `json:"session_id"`
}

// ReportUsage tells counters, at most [MaxUsage]. Those of sessions that the control
// plane does not know of yet are left out, and not settled.
func (n *Node) ReportUsage(ctx context.Context, list []Usage) (UsageAnswer, error) {
	type entry struct {
		counter
		Sequence int64     `json:"sequence"`
		Up       int64     `json:"up"`
		Down     int64     `json:"down"`
		At       time.Time `json:"at"`
	}
	entries := make([]entry, 0, len(list))
	of := make([]int, 0, len(list)) // the position in list of each
	for i, u := range list {
		if !n.Told(u.Session) {
			continue // nobody would know whose it is
		}
		of = append(of, i)
		entries = append(entries, entry{
			counter{uuid.UUID(u.Boot).String(), hex.EncodeToString(u.Session[:])}, u.Sequence, u.Up, u.Down, u.At.UTC(),
		})
	}
	if len(entries) == 0 {
		return UsageAnswer{}, nil
	}
	var told struct {
		Acknowledged []struct {
			counter
			Sequence int64 `json:"sequence"`
		} `json:"acknowledged"`
		Problems []struct {
			Index int    `json:"index"`
			Code  string `json:"code"`
			Taken bool   `json:"taken"`
		} `json:"problems"`
	}
	err := n.control.call(ctx, http.MethodPost, "/api/v1/usage/report", map[string]any{"reports": entries}, &told)
	n.cfg.Observe("usage", err)
	if err != nil {
		return UsageAnswer{}, err
	}
	acknowledged := make(map[counter]int64, len(told.Acknowledged))
	for _, ack := range told.Acknowledged {
		acknowledged[ack.counter] = ack.Sequence
	}
	answer := UsageAnswer{Refused: make(map[int]string)}
	for _, problem := range told.Problems {
		if problem.Index >= 0 && problem.Index < len(of) && !problem.Taken {
			answer.Refused[of[problem.Index]] = problem.Code
		}
	}
	for i, e := range entries {
		if _, refused := answer.Refused[of[i]]; refused || e.Sequence <= acknowledged[e.counter] {
			answer.Settled = append(answer.Settled, of[i])
		}
	}
	return answer, nil
}
