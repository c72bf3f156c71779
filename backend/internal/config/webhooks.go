package config

import (
	"fmt"
	"net/netip"

	"github.com/httvps/httvps/internal/publicaddr"
)

// Webhooks say where operators may have messages sent to.
type Webhooks struct {
	// Allow are networks that messages may be sent to although they are not public.
	Allow []netip.Prefix `yaml:"allow" env:"ALLOW"`
	// PlainHTTP lets messages be sent without TLS: they are signed and not encrypted.
	PlainHTTP bool `yaml:"plain_http" env:"PLAIN_HTTP"`
}

func (w Webhooks) problems() []error {
	var problems []error
	for _, prefix := range w.Allow {
		if err := publicaddr.CheckPrefix(prefix); err != nil {
			problems = append(problems, fmt.Errorf("webhooks.allow: %w", err))
		}
	}
	return problems
}
