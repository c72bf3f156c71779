package httpapi

import "github.com/httvps/httvps/internal/egress"

// PlanEgress is what sessions of a plan may not reach, besides what their gateway denies
// to all.
type PlanEgress struct {
	DeniedPrefixes []string `json:"denied_prefixes" doc:"Of addresses."`
	DeniedPorts    []uint16 `json:"denied_ports" doc:"On every address."`
	AllowedPorts   []uint16 `json:"allowed_ports" doc:"The only ones that are not denied; empty: all others."`
	DeniedNames    []string `json:"denied_names" doc:"Each with everything below it; a dot is every name."`
	AllowedNames   []string `json:"allowed_names" doc:"Exceptions: the longest name decides, and of two that are the same the denial."`
}

func allEgress(r egress.Rules) PlanEgress {
	prefixes := make([]string, 0, len(r.DeniedPrefixes))
	for _, prefix := range r.DeniedPrefixes {
		prefixes = append(prefixes, prefix.String())
	}
	return PlanEgress{
		DeniedPrefixes: prefixes, DeniedPorts: orEmpty(r.DeniedPorts), AllowedPorts: orEmpty(r.AllowedPorts),
		DeniedNames: orEmpty(r.DeniedNames), AllowedNames: orEmpty(r.AllowedNames),
	}
}

// showEgress shows rules, unless they deny nothing.
func showEgress(r egress.Rules) *PlanEgress {
	if r.Empty() {
		return nil
	}
	shown := allEgress(r)
	return &shown
}
