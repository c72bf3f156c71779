// Package anonym keeps the addresses of people out of logs: of an address that came into
// the text of an error, their network is left.
package anonym

import (
	"log"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
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

// Logger returns what an [net/http.Server] that strangers can reach complains to: they
// cause its messages at will, so these are for those who debug.
func Logger(handler slog.Handler) *log.Logger {
	return log.New(writer{slog.NewLogLogger(handler, slog.LevelDebug)}, "", 0)
}

type writer struct{ to *log.Logger }

func (w writer) Write(line []byte) (int, error) {
	w.to.Print(Text(strings.TrimSuffix(string(line), "\n")))
	return len(line), nil
}
