package nodes

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

const (
	// outlineTimeout bounds one question for a session's Outline server, and
	// outlineTries how often it is asked that fails: the answer is the same each time.
	outlineTimeout = 2 * time.Second
	outlineTries   = 2
	outlinePause   = 200 * time.Millisecond

	// The control plane says how often it wants to hear about its servers, within
	// bounds.
	defaultOutlineInterval = 15 * time.Second
	minOutlineInterval     = time.Second
	maxOutlineInterval     = 10 * time.Minute
	// MaxOutlineSeen is how many results [Node.BeatOutline] takes.
	MaxOutlineSeen = 256
)

// ErrNoOutline says that no Outline server may take a session.
var ErrNoOutline = errors.New("no Outline server may take the session")

// OutlineServer is a server of the service's pool and how to use it.
type OutlineServer struct {
	ID         string
	Generation int64 // of the key
	Host       string
	Port       uint16
	Cipher     string
	Password   string
	Prefix     string // of salts; bytes
	Managed    bool   // it refuses targets that are not public by itself
}

// String returns the ID: the rest is secret or says where the server is.
func (s OutlineServer) String() string { return s.ID }

// GoString returns what String does.
func (s OutlineServer) GoString() string { return fmt.Sprintf("nodes.OutlineServer(%q)", s.ID) }

// OutlineFailure says why a server could not be used, in the words of the API.
type OutlineFailure string

// The failures.
const (
	OutlineConnect OutlineFailure = "connect"
	OutlineTimeout OutlineFailure = "timeout"
	OutlineReset   OutlineFailure = "reset"
	OutlineCorrupt OutlineFailure = "corrupt"
	OutlineOther   OutlineFailure = "other"
)

// OutlineExit is the server that a session leaves through.
type OutlineExit struct {
	Server OutlineServer
	// RetryAfter is when to report again that Server fails, where it is the one that
	// was reported.
	RetryAfter time.Duration
}

// OutlineSeen is what a probe of a server saw.
type OutlineSeen struct {
	ID      string
	Failure OutlineFailure // empty: it worked
	Took    time.Duration
}

// OutlineWatch is what is to be probed next, and when the results are wanted.
type OutlineWatch struct {
	Interval time.Duration
	Servers  []OutlineServer
}

// access is an [OutlineServer] as the control plane writes it.
type access struct {
	ServerID   string `json:"server_id"`
	Host       string `json:"host"`
	Port       int    `json:"port"`
	Cipher     string `json:"cipher"`
	Password   string `json:"password"`
	Prefix     string `json:"prefix"`
	Managed    bool   `json:"managed"`
	Generation int64  `json:"generation"`
}

// server reads a. No error repeats a part of it.
func (a access) server() (OutlineServer, error) {
	prefix, err := base64.RawURLEncoding.DecodeString(a.Prefix)
	if err != nil || a.ServerID == "" || a.Host == "" || a.Port < 1 || a.Port > math.MaxUint16 {
		return OutlineServer{}, errors.New("the control plane told an Outline server that is none")
	}
	return OutlineServer{
		ID: a.ServerID, Generation: a.Generation, Host: a.Host, Port: uint16(a.Port), Cipher: a.Cipher, Password: a.Password,
		Prefix: string(prefix), Managed: a.Managed,
	}, nil
}

// AssignOutline asks for the server that a session leaves through, which stays the
// same until it fails. The error is [ErrNoOutline] when there is none for it.
func (n *Node) AssignOutline(ctx context.Context, session [16]byte) (OutlineExit, error) {
	return n.askOutline(ctx, "assign_outline", "/api/v1/nodes/assign-outline", map[string]any{"session_id": hex.EncodeToString(session[:])})
}

// ReportOutline says that a session's server failed, and asks for another one. The
// answer may be the same. The error is that of [Node.AssignOutline].
func (n *Node) ReportOutline(ctx context.Context, session [16]byte, server string, failure OutlineFailure) (OutlineExit, error) {
	return n.askOutline(ctx, "report_outline", "/api/v1/nodes/report-outline-failure",
		map[string]any{"session_id": hex.EncodeToString(session[:]), "server_id": server, "failure": failure})
}

func (n *Node) askOutline(ctx context.Context, call, path string, question any) (OutlineExit, error) {
	for try := 1; ; try++ {
		exit, err := n.askOutlineOnce(ctx, path, question)
		var status *StatusError
		if err == nil || errors.Is(err, ErrNoOutline) { // both are answers
			n.cfg.Observe(call, nil)
			return exit, err
		}
		n.cfg.Observe(call, err)
		if errors.As(err, &status) && status.permanent() || try == outlineTries || !sleep(ctx, outlinePause) {
			n.cfg.Log.WarnContext(ctx, "outline server of a session not told", "error", err)
			return OutlineExit{}, err
		}
	}
}

func (n *Node) askOutlineOnce(ctx context.Context, path string, question any) (OutlineExit, error) {
	ctx, cancel := context.WithTimeout(ctx, outlineTimeout)
	defer cancel()
	var answer struct {
		access
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := n.control.call(ctx, http.MethodPost, path, question, &answer); err != nil {
		var status *StatusError
		if errors.As(err, &status) && status.Code == string(reason.NoOutlineNodesAvailable) {
			return OutlineExit{}, ErrNoOutline
		}
		return OutlineExit{}, err
	}
	server, err := answer.server()
	pause := min(max(answer.RetryAfterMS, 0), maxInterval.Milliseconds())
	return OutlineExit{Server: server, RetryAfter: time.Duration(pause) * time.Millisecond}, err
}

// BeatOutline tells what probes of servers saw, and returns which are to be probed
// next.
func (n *Node) BeatOutline(ctx context.Context, seen []OutlineSeen) (OutlineWatch, error) {
	type result struct {
		ServerID  string         `json:"server_id"`
		Failure   OutlineFailure `json:"failure,omitempty"`
		LatencyMS int64          `json:"latency_ms"`
	}
	results := make([]result, 0, len(seen))
	for _, s := range seen[:min(len(seen), MaxOutlineSeen)] {
		results = append(results, result{s.ID, s.Failure, s.Took.Milliseconds()})
	}
	var answer struct {
		IntervalMS int64    `json:"interval_ms"`
		Servers    []access `json:"servers"`
	}
	err := n.control.call(ctx, http.MethodPost, "/api/v1/outline/heartbeat", map[string]any{"results": results}, &answer)
	watch := OutlineWatch{Interval: defaultOutlineInterval}
	if answer.IntervalMS > 0 {
		asked := time.Duration(min(answer.IntervalMS, maxOutlineInterval.Milliseconds())) * time.Millisecond
		watch.Interval = max(asked, minOutlineInterval)
	}
	for _, told := range answer.Servers {
		server, serverErr := told.server()
		err = errors.Join(err, serverErr)
		watch.Servers = append(watch.Servers, server)
	}
	n.cfg.Observe("outline_heartbeat", err)
	if err != nil {
		return OutlineWatch{}, err
	}
	return watch, nil
}
