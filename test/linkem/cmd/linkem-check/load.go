//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// outcome is what the client measured.
type outcome struct {
	EchoP50, EchoP99 time.Duration // round trips of small packets on the idle link
	Mbit, LastHalf   float64       // what TCP delivered, over all the time and over its second half
}

// serve echoes every UDP packet, and sends over each TCP connection as much as
// it takes, until ctx ends. It writes a line when it is ready.
func serve(ctx context.Context, address string) error {
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	fmt.Println("ready")
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() {
		_ = packets.Close() // a connection that nobody reads any more
		_ = listener.Close()
	})
	defer stop()
	all.Go(func() { echo(packets) })
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil // closed, because ctx ended
		}
		all.Go(func() {
			defer conn.Close()
			block := make([]byte, 256<<10)
			for {
				if _, err := conn.Write(block); err != nil {
					return
				}
			}
		})
	}
}

func echo(packets net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = packets.WriteTo(buf[:n], from) // lost packets are the client's to notice
	}
}

func load(ctx context.Context, address string, duration time.Duration) (outcome, error) {
	var result outcome
	if err := result.echo(ctx, address); err != nil {
		return outcome{}, err
	}
	err := result.download(ctx, address, duration)
	return result, err
}

// echo sends one small packet after the other, with pauses.
func (o *outcome) echo(ctx context.Context, address string) error {
	const probes, pause = 100, 5 * time.Millisecond
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	var times []time.Duration
	buf := make([]byte, 64)
	for range probes {
		sent := time.Now()
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(sent.Add(3 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Read(buf); err == nil {
			times = append(times, time.Since(sent))
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if len(times) == 0 {
		return errors.New("no packet came back")
	}
	slices.Sort(times)
	o.EchoP50, o.EchoP99 = times[len(times)/2], times[len(times)*99/100]
	return nil
}

// download reads for duration.
func (o *outcome) download(ctx context.Context, address string, duration time.Duration) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	began := time.Now()
	read := func(until time.Duration) (int64, error) {
		if err := conn.SetReadDeadline(began.Add(until)); err != nil {
			return 0, err
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, fmt.Errorf("transfer ended early: %w", err)
		}
		return n, nil
	}
	first, err := read(duration / 2)
	if err != nil {
		return err
	}
	second, err := read(duration)
	if err != nil {
		return err
	}
	o.Mbit = float64(first+second) * 8 / 1e6 / duration.Seconds()
	o.LastHalf = float64(second) * 8 / 1e6 / (duration - duration/2).Seconds()
	return nil
}

// processorTime is what this process used so far, without its children.
func processorTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
