package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	// OutlineProbeInterval is how often gateways are to probe the servers.
	OutlineProbeInterval = 15 * time.Second
	// OutlineResultTTL is how long what a gateway saw counts.
	OutlineResultTTL = 4 * OutlineProbeInterval
	// MaxOutlineResults is how many results a report may have, and how many servers a
	// gateway is asked to probe.
	MaxOutlineResults = 256

	// A gateway finds a server down after so many bad results in a row, and up after
	// so many good ones. A change needs more than half of the gateways that look.
	outlineDownAfter = 3
	outlineUpAfter   = 2
	// maxStreak bounds what is counted.
	maxStreak = 1000
	// maxOutlineVotes bounds the gateways whose results are looked at.
	maxOutlineVotes = 1000
)

// OutlineFailure says why a server could not be used.
type OutlineFailure string

// The failures that gateways tell apart.
const (
	OutlineConnect OutlineFailure = "connect" // no connection to the server
	OutlineTimeout OutlineFailure = "timeout" // connected, and then nothing came
	OutlineReset   OutlineFailure = "reset"   // the server hung up: it may not know the key
	OutlineCorrupt OutlineFailure = "corrupt" // what came could not be deciphered
	OutlineOther   OutlineFailure = "other"
)

// OutlineFailures returns all failures.
func OutlineFailures() []OutlineFailure {
	return []OutlineFailure{OutlineConnect, OutlineTimeout, OutlineReset, OutlineCorrupt, OutlineOther}
}

// OutlineResult is what a gateway's probe through a server saw.
type OutlineResult struct {
	ServerID string
	Failure  OutlineFailure // empty: it worked
	Latency  time.Duration  // when it worked
}

// OutlineProbe is what a gateway last saw of a server.
type OutlineProbe struct {
	ServerID  string
	GatewayID string
	Streak    int // results in a row: above 0 good ones, below 0 bad ones
	Failure   OutlineFailure
	Latency   time.Duration
	ProbedAt  time.Time
}

// next returns p after a further result.
func (p OutlineProbe) next(r OutlineResult, now time.Time) OutlineProbe {
	if p.ProbedAt.Before(now.Add(-OutlineResultTTL)) {
		p.Streak = 0
	}
	if r.Failure == "" {
		p.Streak = min(max(p.Streak, 0)+1, maxStreak)
	} else {
		p.Streak = max(min(p.Streak, 0)-1, -maxStreak)
	}
	p.Failure, p.Latency, p.ProbedAt = r.Failure, r.Latency, now
	return p
}

// verdict returns what a server that was in a state is now, by what gateways have
// seen of it lately.
func verdict(state OutlineState, probes []OutlineProbe) OutlineState {
	up, down := 0, 0
	for _, p := range probes {
		switch {
		case p.Streak >= outlineUpAfter:
			up++
		case p.Streak <= -outlineDownAfter:
			down++
		}
	}
	switch {
	case 2*down > len(probes):
		return OutlineDown
	case 2*up > len(probes):
		return OutlineUp
	default:
		return state
	}
}

// HealthChange says that a server is found to be in another state.
type HealthChange struct {
	ServerID string
	State    OutlineState
}

// ReportOutline books what a gateway's probes saw, of several results about a
// server the last one, and returns the servers that changed their state by it.
// Gateways are told of those that went down. Servers that are gone are passed over.
func (a *Authority) ReportOutline(ctx context.Context, gateway Gateway, results []OutlineResult) ([]HealthChange, error) {
	byServer := make(map[string]OutlineResult, len(results))
	ids := make([]string, 0, len(results))
	for _, r := range results {
		if _, twice := byServer[r.ServerID]; !twice {
			ids = append(ids, r.ServerID)
		}
		byServer[r.ServerID] = r
	}
	slices.SortFunc(ids, strings.Compare) // in one order for all, so that none waits in a circle
	var changes []HealthChange
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		changes = nil
		for _, id := range ids {
			change, err := a.bookProbe(ctx, tx, gateway, byServer[id])
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if change.State != "" {
				changes = append(changes, change)
			}
		}
		return nil
	})
	return changes, err
}

func (a *Authority) bookProbe(ctx context.Context, tx Tx, gateway Gateway, r OutlineResult) (HealthChange, error) {
	now := a.now()
	server, err := tx.OutlineServer(ctx, r.ServerID) // held: of several gateways each sees what the others said
	if err != nil {
		return HealthChange{}, err
	}
	probe, err := tx.OutlineProbe(ctx, server.ID, gateway.ID)
	if errors.Is(err, ErrNotFound) {
		probe, err = OutlineProbe{ServerID: server.ID, GatewayID: gateway.ID}, nil
	}
	if err != nil {
		return HealthChange{}, err
	}
	if err := tx.PutOutlineProbe(ctx, probe.next(r, now)); err != nil {
		return HealthChange{}, err
	}
	probes, err := tx.OutlineProbes(ctx, server.ID, now.Add(-OutlineResultTTL), maxOutlineVotes)
	if err != nil {
		return HealthChange{}, err
	}
	server.DisabledAt = nil // its health is another thing
	was := server.State(now)
	health := OutlineHealth{State: verdict(was, probes), Since: server.Health.Since, ProbedAt: &now, DownAt: server.Health.DownAt}
	var change HealthChange
	if health.State != was {
		change, health.Since = HealthChange{ServerID: server.ID, State: health.State}, &now
		if health.State == OutlineDown {
			a.tellOutline(tx, server.ID)
		}
	}
	a.announceOutline(tx, server, &health, now)
	return change, tx.SetOutlineHealth(ctx, server.ID, health)
}

// announceOutline has webhooks told when a server went down, and when it is up again.
// Between the two nobody may have known anything of it.
func (a *Authority) announceOutline(tx Tx, server OutlineServer, health *OutlineHealth, now time.Time) {
	switch {
	case health.State == OutlineDown && health.DownAt == nil:
		health.DownAt = &now
		a.announce(tx, notice{Type: NoticeOutlineDown, Object: server.ID, Data: noticeData{Outline: aboutOutline(server, now)}})
	case health.State == OutlineUp && health.DownAt != nil:
		a.announce(tx, notice{Type: NoticeOutlineUp, Object: server.ID, Data: noticeData{Outline: aboutOutline(server, *health.DownAt)}})
		health.DownAt = nil
	}
}

// ProbedServers returns the servers that a gateway is to probe: those that its
// sessions may leave through, also those that are down.
func (a *Authority) ProbedServers(ctx context.Context, gateway Gateway) ([]OutlineAccess, error) {
	var all []OutlineAccess
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		servers, err := tx.OutlineChoices(ctx, gateway.Region, MaxOutlineResults)
		if err != nil {
			return err
		}
		all = make([]OutlineAccess, 0, len(servers))
		for _, s := range servers {
			key, err := tx.OutlineKey(ctx, s.ID)
			if err != nil {
				return err
			}
			access, err := a.accessWith(s, key)
			if err != nil {
				return err
			}
			all = append(all, access)
		}
		return nil
	})
	return all, err
}

// OutlineProbes returns what gateways have seen of a server lately.
func (a *Authority) OutlineProbes(ctx context.Context, serverID string) ([]OutlineProbe, error) {
	var probes []OutlineProbe
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		probes, err = tx.OutlineProbes(ctx, serverID, a.now().Add(-OutlineResultTTL), MaxOutlineResults)
		return err
	})
	return probes, err
}
