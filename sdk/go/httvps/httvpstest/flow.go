package httvpstest

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// flowIdle is when a flow ends that nothing moves on.
const flowIdle = time.Minute

// forwardFlow exchanges a flow's datagrams with its peers, docs/03, part 6.1. It
// does not hold back what an address gets that has not answered.
func (s *Service) forwardFlow(flow *mux.Flow) {
	var one netip.AddrPort // the peer of a wire.KindUDP
	if flow.Kind() == wire.KindUDP {
		var err error
		if one, err = s.opts.Peer(flow.Target()); err != nil {
			code := wire.CodeDNSFail
			if refused, ok := errors.AsType[*mux.StreamError](err); ok {
				code = refused.Code
			}
			flow.Reset(code)
			return
		}
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		flow.Reset(wire.CodeInternal)
		return
	}
	defer func() { _ = socket.Close() }()
	if flow.Confirm() != nil {
		return
	}
	idle := time.AfterFunc(flowIdle, func() { flow.Reset(wire.CodeIdle) })
	defer idle.Stop()
	var (
		known sync.Map // addresses that were sent to
		down  sync.WaitGroup
	)
	down.Go(func() {
		buf := make([]byte, wire.MaxDatagram+1)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buf)
			if err != nil {
				flow.Reset(wire.CodeEgressLost) // or it has ended
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if _, ok := known.Load(from); !ok || n == len(buf) {
				continue
			}
			_ = flow.Send(wire.Addr{IP: from.Addr(), Port: from.Port()}, buf[:n])
			idle.Reset(flowIdle)
		}
	})
	buf := make([]byte, wire.MaxDatagram)
	for {
		n, peer, err := flow.Receive(buf)
		if err != nil {
			break
		}
		idle.Reset(flowIdle)
		to := one
		if flow.Kind() == wire.KindUDPAny {
			if to, err = s.opts.Peer(peer); err != nil {
				continue
			}
		}
		known.Store(to, nil)
		_, _ = socket.WriteToUDPAddrPort(buf[:n], to)
	}
	_ = socket.Close()
	down.Wait()
}
