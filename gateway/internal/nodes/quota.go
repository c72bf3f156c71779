package nodes

import (
	"context"
	"net/http"
	"time"
)

// MaxLeases is how many leases one question may be about.
const MaxLeases = 1000

// leaseTimeout bounds a question for quotas: traffic may be waiting for the answer.
const leaseTimeout = 5 * time.Second

// LeaseRequest asks for more of a subscription's quota, or to keep what there is.
type LeaseRequest struct {
	Subscription string
	Used         int64 // bytes since this start of the gateway
	Version      int64 // of the lease that the gateway has
	GiveBack     bool  // what is not used
}

// Grant is what may be used of a subscription's quota, as docs/02 has it.
type Grant struct {
	Subscription string
	State        string
	Version      int64
	Allowance    int64 // bytes since this start of the gateway
	ThrottleBPS  int64
	Quota, Used  int64 // bytes, of all gateways
	Reached      int   // the highest percentage to be warned of that is used; 0: none
}

// lease is a [LeaseRequest] as the control plane reads it.
type lease struct {
	SubscriptionID string `json:"subscription_id"`
	Used           int64  `json:"used"`
	Version        int64  `json:"version,omitempty"`
	Hold           *int64 `json:"hold,omitempty"`
}

func leasesOf(requests []LeaseRequest) []lease {
	list := make([]lease, 0, len(requests))
	for _, r := range requests {
		l := lease{SubscriptionID: r.Subscription, Used: r.Used, Version: r.Version}
		if r.GiveBack {
			l.Hold = &l.Used
		}
		list = append(list, l)
	}
	return list
}

// grant is a [Grant] as the control plane writes it.
type grant struct {
	SubscriptionID string `json:"subscription_id"`
	State          string `json:"state"`
	Version        int64  `json:"version"`
	Allowance      int64  `json:"allowance"`
	ThrottleBPS    int64  `json:"throttle_bps"`
	QuotaBytes     int64  `json:"quota_bytes"`
	UsedBytes      int64  `json:"used_bytes"`
	ReachedPercent int    `json:"reached_percent"`
}

func (g grant) grant() Grant {
	return Grant{
		Subscription: g.SubscriptionID, State: g.State, Version: max(g.Version, 0), Allowance: max(g.Allowance, 0), ThrottleBPS: max(g.ThrottleBPS, 0),
		Quota: max(g.QuotaBytes, 0), Used: max(g.UsedBytes, 0), Reached: max(g.ReachedPercent, 0),
	}
}

func grantsOf(told []grant) []Grant {
	list := make([]Grant, 0, len(told))
	for _, g := range told {
		list = append(list, g.grant())
	}
	return list
}

// RenewQuotas asks about leases, at most [MaxLeases].
func (n *Node) RenewQuotas(ctx context.Context, requests []LeaseRequest) ([]Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var answer struct {
		Quotas []grant `json:"quotas"`
	}
	err := n.control.call(ctx, http.MethodPost, "/api/v1/quota/leases", map[string]any{"boot_id": n.boot, "leases": leasesOf(requests)}, &answer)
	n.cfg.Observe("quota", err)
	return grantsOf(answer.Quotas), err
}
