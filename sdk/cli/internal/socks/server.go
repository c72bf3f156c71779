// Package socks is a SOCKS5 server (RFC 1928) for programs on this machine. It
// serves CONNECT and UDP ASSOCIATE, with a user name and a password (RFC 1929) or
// without authentication, over connections and sockets that it is handed functions
// for; the names that clients send reach them unresolved.
package socks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/credential"
	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// Bounds of a server.
const (
	// maxConns is how many clients are served at once; more wait in the
	// system's queue.
	maxConns = 4096

	// handshakeTimeout is how long a client may take to say what it wants.
	handshakeTimeout = 10 * time.Second

	// dialTimeout bounds the wait for a session, for a free place in it and
	// for the target. Clients rarely wait longer.
	dialTimeout = 60 * time.Second

	// replyTimeout bounds the writing of an answer.
	replyTimeout = 10 * time.Second
)

// Server serves SOCKS5. It must not be copied.
type Server struct {
	// Dial is required; it is given "tcp" and an address with the client's name or
	// IP address. Its connections are closed by halves when they have CloseRead and
	// CloseWrite, and broken off with Abort when they have that.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// ListenPacket opens a socket for datagrams. WriteTo is given a *net.UDPAddr,
	// or an httvps.Addr for a name, and has to drop rather than wait; ReadFrom
	// returns the same. Nil means that UDP ASSOCIATE is not supported.
	ListenPacket func(ctx context.Context) (net.PacketConn, error)

	// Login is what clients have to show; nil: nothing.
	Login *credential.Pair

	associations atomic.Int64
}

// Serve accepts clients from ln until ctx ends, or ln fails for good. When it
// returns, ln and every connection are closed and every handler has returned.
// The error is nil when ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return relay.Serve(ctx, ln, maxConns, s.serve)
}

// serve handles one client. Errors end here: the client has been told what the
// protocol can say, and nobody else is to know where it wanted to go.
func (s *Server) serve(ctx context.Context, client net.Conn) {
	req, err := s.handshake(client)
	if err != nil {
		if fault, ok := errors.AsType[*replyError](err); ok {
			answer(client, fault.reply)
		}
		return
	}
	if req.command == commandAssociate {
		s.associate(ctx, client, req)
		return
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	target, err := s.Dial(dialCtx, "tcp", req.address())
	cancel()
	if err != nil {
		answer(client, replyFor(err))
		return
	}
	defer func() { _ = target.Close() }()
	stopTarget := context.AfterFunc(ctx, func() { relay.Abort(target) })
	defer stopTarget()
	if !answer(client, replySucceeded) {
		return
	}
	relay.Copy(client, target)
}

// handshake reads the client's wish within the time there is for it.
func (s *Server) handshake(client net.Conn) (request, error) {
	_ = client.SetDeadline(time.Now().Add(handshakeTimeout))
	method := byte(methodNone)
	if s.Login != nil {
		method = methodPassword
	}
	if err := readGreeting(client, method); err != nil {
		if errors.Is(err, errMethods) {
			_, _ = client.Write([]byte{version5, methodUnacceptable})
		}
		return request{}, err
	}
	if _, err := client.Write([]byte{version5, method}); err != nil {
		return request{}, err
	}
	if s.Login != nil {
		if err := s.login(client); err != nil {
			return request{}, err
		}
	}
	return readRequest(client)
}

// login has the client show user name and password.
func (s *Server) login(client net.Conn) error {
	user, password, err := readLogin(client)
	if err != nil {
		return err
	}
	status := byte(loginSucceeded)
	if !s.Login.Is(user, password) {
		status, err = loginFailed, errLogin
	}
	if _, writeErr := client.Write([]byte{loginVersion, status}); err == nil {
		err = writeErr
	}
	return err
}

// answer writes a reply and leaves the client without deadlines.
func answer(client net.Conn, r reply) bool {
	return write(client, appendReply(nil, r))
}

// answerAt is answer with a bound address.
func answerAt(client net.Conn, r reply, at netip.AddrPort) bool {
	return write(client, appendReplyAt(nil, r, at))
}

func write(client net.Conn, reply []byte) bool {
	_ = client.SetDeadline(time.Now().Add(replyTimeout))
	if _, err := client.Write(reply); err != nil {
		return false
	}
	return client.SetDeadline(time.Time{}) == nil
}

// replies says what SOCKS5 calls the codes of a tunnel. A code without a row is
// a general failure.
var replies = map[string]reply{
	"policy_denied": replyNotAllowed,
	"refused":       replyNotAllowed,
	"net_unreach":   replyNetworkUnreachable,
	"egress_lost":   replyNetworkUnreachable,
	"host_unreach":  replyHostUnreachable,
	"dns_fail":      replyHostUnreachable,
	"conn_refused":  replyConnectionRefused,
	"target_reset":  replyConnectionRefused,
	"conn_timeout":  replyTTLExpired,
	"unsupported":   replyCommandUnsupported,

	"no_outline_nodes_available": replyNetworkUnreachable,
}

func replyFor(err error) reply {
	if open, ok := errors.AsType[*httvps.OpenError](err); ok {
		if r, ok := replies[open.Code]; ok {
			return r
		}
		return replyFailure
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return replyTTLExpired
	}
	return replyFailure
}
