//go:build linux

// Command linkem-check measures how well package linkem keeps its word on this
// machine: for each link the round trip of small packets, what one TCP
// connection gets through, and how late the emulator ran. Needs root.
//
//	go run ./test/linkem/cmd/linkem-check
//	go run ./test/linkem/cmd/linkem-check -rate 200 -rtt 300ms -congestion bbr -duration 20s
//
// The columns are: rate in Mbit/s; round trip and congestion control of the link;
// round trips of small packets while it is idle; what TCP delivered, payload
// alone, in all the time and in its last half, the latter as a share of the
// rate (1448 bytes of 1500 are payload: 96.5 % is all there is); packets that
// found the queue full; packets delivered more than a millisecond late, and
// the latest; how much of one processor the emulator took. Many late packets say
// that the machine was busy, and that the line is not worth much.
//
// Both ends are processes of their own, so that they do not compete with the
// emulator inside of one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/httvps/httvps/test/linkem"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "linkem-check:", err)
		os.Exit(1)
	}
}

// trial is one link and how it is loaded.
type trial struct {
	config   linkem.Config
	duration time.Duration
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("linkem-check", flag.ContinueOnError)
	var (
		role       = flags.String("role", "", "what this process does in a namespace: server or client (used by the check itself)")
		server     = flags.String("server", "", "address of the server, for -role")
		rate       = flags.Float64("rate", 0, "Mbit/s of one link to measure; without it, a table of links")
		rtt        = flags.Duration("rtt", 100*time.Millisecond, "round trip of the one link")
		queue      = flags.Int("queue", 0, "bytes of its queue; 0 is one bandwidth-delay product")
		loss       = flags.Float64("loss", 0, "share of packets it loses, 0 to 1")
		congestion = flags.String("congestion", "", "TCP congestion control; empty is the system's default")
		duration   = flags.Duration("duration", 10*time.Second, "length of each transfer")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch *role {
	case "server":
		return serve(ctx, *server)
	case "client":
		result, err := load(ctx, *server, *duration)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	trials := table(*duration)
	if *rate > 0 {
		trials = []trial{{
			config: linkem.Config{
				Rate: int64(*rate * 1e6), Delay: *rtt / 2, QueueBytes: *queue, Loss: *loss, CongestionControl: *congestion,
			},
			duration: *duration,
		}}
	}
	fmt.Printf(
		"%5s %6s %8s %10s %10s %7s %10s %8s %8s %8s %10s %5s\n",
		"rate", "RTT", "control", "echo p50", "echo p99", "Mbit/s", "last half", "of rate", "dropped", "late", "latest", "CPU",
	)
	for _, t := range trials {
		if err := t.measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// table is the links that the documentation of linkem speaks of.
func table(duration time.Duration) []trial {
	var trials []trial
	for _, link := range []struct {
		mbit       int64
		rtt        time.Duration
		congestion string
		at         time.Duration // least length of the transfer
	}{
		{50, 20 * time.Millisecond, "cubic", 0},
		{100, 20 * time.Millisecond, "cubic", 0},
		{200, 20 * time.Millisecond, "cubic", 0},
		{400, 20 * time.Millisecond, "cubic", 0},
		{100, 100 * time.Millisecond, "cubic", 0},
		{100, 100 * time.Millisecond, "bbr", 0},
		{200, 300 * time.Millisecond, "cubic", 20 * time.Second},
		{200, 300 * time.Millisecond, "bbr", 20 * time.Second},
	} {
		trials = append(trials, trial{
			config:   linkem.Config{Rate: link.mbit * 1e6, Delay: link.rtt / 2, CongestionControl: link.congestion},
			duration: max(duration, link.at),
		})
	}
	return trials
}

// measure prints a line of the table.
func (t trial) measure(ctx context.Context) (err error) {
	link, err := linkem.Open(t.config)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := link.Close(); err == nil {
			err = closeErr
		}
	}()
	control := t.config.CongestionControl
	if control == "" {
		if control, err = link.Server.Sysctl("net.ipv4.tcp_congestion_control"); err != nil {
			return err
		}
	}
	result, cpu, err := t.drive(ctx, link)
	if err != nil {
		return err
	}
	up, down := link.Stats(linkem.Up), link.Stats(linkem.Down)
	rate := float64(t.config.Rate) / 1e6
	fmt.Printf(
		"%5.0f %6v %8s %10v %10v %7.1f %10.1f %7.1f%% %8d %7.3f%% %10v %4.0f%%\n",
		rate, 2*t.config.Delay, control,
		result.EchoP50.Round(time.Microsecond), result.EchoP99.Round(time.Microsecond),
		result.Mbit, result.LastHalf, 100*result.LastHalf/rate, down.DroppedQueue,
		100*float64(up.Late+down.Late)/float64(max(1, up.Passed+down.Passed)),
		max(up.MaxLate, down.MaxLate).Round(time.Microsecond), 100*cpu,
	)
	return nil
}

// drive runs both ends and returns, beside the client's result, how much of one
// processor the emulator took meanwhile.
func (t trial) drive(ctx context.Context, link *linkem.Link) (result outcome, cpu float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, 0, err
	}
	address := fmt.Sprintf("%v:9000", link.Server.Addr())
	serving, stop := context.WithCancel(ctx)
	server := link.Server.Command(serving, self, "-role", "server", "-server", address)
	server.Stderr = os.Stderr
	ready, err := server.StdoutPipe()
	if err != nil {
		stop()
		return outcome{}, 0, err
	}
	if err := server.Start(); err != nil {
		stop()
		return outcome{}, 0, err
	}
	defer func() {
		stop()
		_ = server.Wait() // it was killed
	}()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return outcome{}, 0, fmt.Errorf("server: %w", err)
	}
	client := link.Client.Command(ctx, self, "-role", "client", "-server", address, "-duration", t.duration.String())
	began, used := time.Now(), processorTime()
	text, err := client.Output()
	cpu = (processorTime() - used).Seconds() / time.Since(began).Seconds()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return outcome{}, 0, fmt.Errorf("client: %s", strings.TrimSpace(string(exit.Stderr)))
		}
		return outcome{}, 0, fmt.Errorf("client: %w", err)
	}
	return result, cpu, json.Unmarshal(text, &result)
}
