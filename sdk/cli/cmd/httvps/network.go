package main

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// networkCheck is how often it is looked which addresses the machine has.
const networkCheck = 2 * time.Second

// watchNetwork calls changed when the machine has lost an address and has one again,
// until ctx ends: what was connected from the lost one hears nothing any more, and
// nobody says so. One more address is no reason: what there is goes on.
func watchNetwork(ctx context.Context, addresses func() ([]net.Addr, error), changed func()) error {
	tick := time.NewTicker(networkCheck)
	defer tick.Stop()
	had, lost := reachableBy(addresses), false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		has := reachableBy(addresses)
		for addr := range had {
			lost = lost || !has[addr]
		}
		had = has
		if lost && len(has) > 0 {
			lost = false
			changed()
		}
	}
}

// reachableBy are the addresses by which others answer this machine.
func reachableBy(addresses func() ([]net.Addr, error)) map[netip.Addr]bool {
	found := make(map[netip.Addr]bool)
	list, err := addresses()
	if err != nil {
		return found // as without a network; the next look is soon
	}
	for _, one := range list {
		network, ok := one.(*net.IPNet)
		if !ok {
			continue
		}
		if addr, ok := netip.AddrFromSlice(network.IP); ok && addr.Unmap().IsGlobalUnicast() {
			found[addr.Unmap()] = true
		}
	}
	return found
}
