// Package anonym keeps the addresses of people out of logs: of an address that came into
// the text of an error, their network is left.
package anonym

import (
	"context"
	"log/slog"
	"net/netip"
	"regexp"
)

// Of an address only the network is kept that many people have.
const (
	bits4 = 24
	bits6 = 48
)

// endpoint finds what may be an address with its port, as package net writes it.
var endpoint = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}:\d{1,5}|\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._-]+)?\]:\d{1,5}`)

// Text returns text with networks in place of the addresses with ports in it.
func Text(text string) string {
	return endpoint.ReplaceAllStringFunc(text, func(found string) string {
		at, err := netip.ParseAddrPort(found)
		if err != nil {
			return found
		}
		addr := at.Addr().Unmap()
		bits := bits4
		if addr.Is6() {
			bits = bits6
		}
		network, err := addr.WithZone("").Prefix(bits)
		if err != nil {
			return "(an address)"
		}
		return network.String()
	})
}

// Error returns the text of an error as Text does; empty for none.
func Error(err error) string {
	if err == nil {
		return ""
	}
	return Text(err.Error())
}

// Handler returns h with the messages of its records as Text has them. What a server of
// package net/http complains of goes through it.
func Handler(h slog.Handler) slog.Handler { return handler{h} }

type handler struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	r.Message = Text(r.Message)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
