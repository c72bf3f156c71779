package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/httvps/httvps/sdk/cli/internal/forward"
)

// maxForwards bounds the sockets that are held for -L.
const maxForwards = 64

// forwardFlags are the flags about forwards, as they were given.
type forwardFlags struct {
	texts  []string
	public bool
}

// parse reads them. A mistake is a usage error that quotes the flag.
func (f forwardFlags) parse() ([]forward.Spec, error) {
	if len(f.texts) > maxForwards {
		return nil, usagef("-L was given %d times, want at most %d", len(f.texts), maxForwards)
	}
	specs := make([]forward.Spec, 0, len(f.texts))
	for _, text := range f.texts {
		spec, err := forward.ParseSpec(text, f.public)
		if errors.Is(err, forward.ErrPublic) {
			return nil, usagef("-L %s: %w; it asks for no password, so anybody who reaches it would use your tunnel (--forward-public if that is what you want)", text, err)
		}
		if err != nil {
			return nil, usagef("-L %s: %w", text, err)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// listenAll opens all forwards, or none.
func listenAll(ctx context.Context, specs []forward.Spec) ([]*forward.Forward, error) {
	ports := make([]*forward.Forward, 0, len(specs))
	for _, spec := range specs {
		port, err := forward.Listen(ctx, spec)
		if err != nil {
			closeAll(ports)
			return nil, fmt.Errorf("-L %s: %w", spec, err)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func closeAll(ports []*forward.Forward) {
	for _, port := range ports {
		_ = port.Close()
	}
}

// forwarded is a forward in the ready line.
type forwarded struct {
	Proto  string `json:"proto"`
	Listen string `json:"listen"`
	Target string `json:"target"`
}

// tellAll says what is forwarded; never nil, so that scripts always find a list.
func tellAll(ports []*forward.Forward) []forwarded {
	list := make([]forwarded, 0, len(ports))
	for _, port := range ports {
		list = append(list, forwarded{Proto: port.Network(), Listen: port.Addr().String(), Target: port.Target()})
	}
	return list
}
