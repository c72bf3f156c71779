//go:build !linux

// Package blackhole is a target on this machine that never answers a TCP
// connection, on Linux.
package blackhole

import (
	"context"
	"errors"
)

// Blackhole exists on Linux only.
type Blackhole struct{}

var errSystem = errors.New("a blackhole needs Linux")

// Open works on Linux only.
func Open(context.Context) (*Blackhole, error) { return nil, errSystem }

// Address is empty.
func (*Blackhole) Address() string { return "" }

// Dials works on Linux only.
func (*Blackhole) Dials() (int, error) { return 0, errSystem }

// Close does nothing.
func (*Blackhole) Close() error { return nil }
