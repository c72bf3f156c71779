package config

import "github.com/httvps/httvps/sdk/go/wire"

// Padding is what devices and gateway add to what they send, so that sizes tell less of
// what is in it: docs/03, part 8.6.
type Padding struct {
	// Enabled pads sessions, for devices that know how.
	Enabled bool `yaml:"enabled" env:"ENABLED"`
	// Messages are padded that are the first of a connection, and of each stream half as
	// many to as many.
	Messages int `yaml:"messages" env:"MESSAGES"`
	// Sizes are the lengths in bytes that messages are brought to, in ascending order; what
	// is longer than the last one is left as it is.
	Sizes []int `yaml:"sizes" env:"SIZES"`
	// Spread is up to how many bytes more, drawn for each message.
	Spread int `yaml:"spread" env:"SPREAD"`
	// Share is how much padding a session may have at most, per cent of what it moves, at
	// either end, and 128 KiB.
	Share int `yaml:"share" env:"SHARE"`
}

func defaultPadding() Padding {
	p := wire.DefaultPadding()
	return Padding{Enabled: true, Messages: p.Messages, Sizes: p.Sizes, Spread: p.Spread, Share: p.Share}
}

// Policy is what devices are told; nil: no padding.
func (p Padding) Policy() *wire.PaddingPolicy {
	if !p.Enabled {
		return nil
	}
	return &wire.PaddingPolicy{Messages: p.Messages, Sizes: p.Sizes, Spread: p.Spread, Share: p.Share}
}

func (p Padding) validate(all *problems) {
	all.number("padding.messages", p.Messages, 1, wire.MaxPadMessages)
	all.number("padding.spread", p.Spread, 0, wire.MaxPadSpread)
	all.number("padding.share", p.Share, 1, wire.MaxPadShare)
	if n := len(p.Sizes); n < 1 || n > wire.MaxPadSizes {
		all.add("padding.sizes are %d, want 1 to %d; padding.enabled: false is for none", n, wire.MaxPadSizes)
	}
	last := 0
	for _, size := range p.Sizes {
		switch {
		case size < wire.MinPadSize || size > wire.MaxPadSize:
			all.add("padding.sizes: %d is not %d to %d bytes", size, wire.MinPadSize, wire.MaxPadSize)
		case size <= last:
			all.add("padding.sizes: %d comes behind %d, want them in ascending order", size, last)
		}
		last = max(last, size)
	}
}
