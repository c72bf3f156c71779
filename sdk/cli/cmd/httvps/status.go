package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// status is how httvps connect is doing; it is what status -o json prints.
type status struct {
	State      string      `json:"state"` // connected, degraded (the session waits for a connection), disconnected, or stopped: nobody runs
	Gateway    string      `json:"gateway"`
	Region     string      `json:"region"`
	Session    string      `json:"session"`
	Since      *time.Time  `json:"since"` // null before the first session
	LatencyMS  *float64    `json:"latency_ms"`
	Limits     *limits     `json:"limits"` // null: there is no session
	Streams    int         `json:"streams"`
	Sent       uint64      `json:"sent"`
	Received   uint64      `json:"received"`
	SendRate   float64     `json:"sent_per_second"`
	RecvRate   float64     `json:"received_per_second"`
	Reason     string      `json:"reason"` // why there is no session: a code, where there is one
	Error      string      `json:"error"`
	SOCKS      string      `json:"socks"`
	HTTP       string      `json:"http"`
	Forwards   []forwarded `json:"forwards"`
	Plan       *plan       `json:"plan"` // null: not known, PlanError says why
	PlanError  string      `json:"plan_error"`
	Version    string      `json:"version"`
	MeasuredAt time.Time   `json:"measured_at"`
}

// pingTimeout bounds the measuring of latency; the last one is told instead.
const pingTimeout = time.Second

// status says how the tunnel is doing now.
func (t *tunnel) status(ctx context.Context, client *httvps.Client) status {
	known, problem := t.plans.get(ctx)
	pingCtx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, _ = client.Ping(pingCtx) // what comes of it is in what follows
	now := client.Status()
	s := status{
		State: "disconnected", Streams: now.Streams, Sent: now.Sent, Received: now.Received,
		SOCKS: t.socks, HTTP: t.http, Forwards: t.forwards, Plan: known, PlanError: problem, Version: version, MeasuredAt: time.Now().UTC(),
	}
	if !now.Since.IsZero() {
		since := now.Since.UTC()
		s.Since = &since
	}
	if now.Connected || now.Degraded {
		s.State, s.Gateway, s.Region, s.Session = "connected", host(now.Gateway.URL), now.Gateway.Region, now.Session
		s.Limits = limitsOf(now.Limits)
		if now.RoundTrip > 0 {
			s.LatencyMS = milliseconds(now.RoundTrip)
		}
	}
	if now.Degraded {
		s.State = "degraded"
	}
	if now.Err != nil {
		s.Error = now.Err.Error()
		if refused, ok := errors.AsType[*httvps.RefusedError](now.Err); ok {
			s.Reason = refused.Code
		}
	}
	return s
}

// milliseconds is d with three places, as people compare it.
func milliseconds(d time.Duration) *float64 {
	ms := math.Round(float64(d)/float64(time.Millisecond)*1000) / 1000
	return &ms
}

// sample is how long status looks at the traffic.
const sample = 500 * time.Millisecond

func newStatus(around surroundings) *cobra.Command {
	var (
		form  format
		watch bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how the running httvps connect is doing, and what is left of the plan",
		Long: `Say how the running httvps connect is doing: gateway, region, latency, traffic; and
what the plan has left, in days and of its traffic, as the service knew a few seconds ago.

Without one that runs with this home it says so, asks the service for the plan itself,
and ends with exit code 1; with -o json, the state is "stopped" then, and otherwise
"connected", "degraded" (the session has lost its connection and waits for another one)
or "disconnected".`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := around.look()
			if err != nil {
				return err
			}
			for {
				s, err := measured(cmd.Context(), store.Path())
				if errors.Is(err, control.ErrNobody) {
					s.Plan, s.PlanError = planOf(cmd.Context(), store)
				}
				if wished(cmd) {
					return nil
				}
				if err := form.print(cmd.OutOrStdout(), s, func(w io.Writer) { s.write(w, around.speak) }); err != nil {
					return err
				}
				if err != nil || !watch {
					return err
				}
			}
		},
	}
	form.define(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "say it again and again, until Ctrl-C")
	return cmd
}

// measured asks twice, for the rates in between.
func measured(ctx context.Context, dir string) (status, error) {
	var before, s status
	err := control.Status(ctx, dir, &before)
	if err == nil {
		timer := time.NewTimer(sample)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
		err = control.Status(ctx, dir, &s)
	}
	if err != nil {
		return status{State: "stopped", Forwards: []forwarded{}, Version: version, MeasuredAt: time.Now().UTC()}, err
	}
	if took := s.MeasuredAt.Sub(before.MeasuredAt).Seconds(); took > 0 {
		s.SendRate = math.Round(float64(s.Sent-before.Sent) / took)
		s.RecvRate = math.Round(float64(s.Received-before.Received) / took)
	}
	return s, nil
}

// write says it to a person.
func (s status) write(w io.Writer, speak words.Language) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = table.Flush() }()
	line := func(name, value string) { _, _ = fmt.Fprintf(table, "%s\t%s\n", speak.Say(name), value) }
	if s.State == "stopped" { // the error says so
		s.Plan.write(line, speak)
		return
	}
	switch s.State {
	case "connected":
		_, _ = fmt.Fprintln(table, speak.Say("connected"))
	case "degraded":
		_, _ = fmt.Fprintln(table, speak.Say("the connection is lost; the session waits for another one"))
	default:
		_, _ = fmt.Fprintln(table, speak.Say("not connected"))
	}
	if s.Gateway != "" {
		line("gateway", s.Gateway)
		line("region", plainText(s.Region))
	}
	if s.State != "connected" {
		reason := s.Error
		if s.Reason != "" {
			reason = s.Reason + ". " + speak.Explain(s.Reason)
		}
		line("reason", plainText(reason))
	}
	if s.Since != nil {
		line("since", s.Since.Local().Format(time.DateTime))
	}
	if s.LatencyMS != nil {
		line("latency", fmt.Sprintf("%.1f ms", *s.LatencyMS))
	}
	line("received", speak.Say("%s (now %s/s)", size(float64(s.Received)), size(s.RecvRate)))
	line("sent", speak.Say("%s (now %s/s)", size(float64(s.Sent)), size(s.SendRate)))
	line("streams", fmt.Sprint(s.Streams))
	line("SOCKS5 proxy", s.SOCKS)
	if s.HTTP != "" {
		line("HTTP proxy", s.HTTP)
	}
	for _, f := range s.Forwards {
		line("forward", f.Proto+" "+f.Listen+" → "+plainText(f.Target))
	}
	s.Plan.write(line, speak)
	if s.PlanError != "" {
		line("plan", speak.Say("not known: %s", plainText(s.PlanError)))
	}
}

// size is a number of bytes as people read it.
func size(bytes float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if bytes < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", bytes)
			}
			return fmt.Sprintf("%.1f %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.1f TiB", bytes)
}

// plainText is what others wrote, without anything that a terminal would act on.
func plainText(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, text)
}

// format is how a command answers.
type format struct{ name string }

func (f *format) define(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.name, "output", "o", "text", "text, or json for scripts")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	check := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.name != "text" && f.name != "json" {
			return usagef("--output is %q, want text or json", f.name)
		}
		return check(cmd, args)
	}
}

// print writes v as one line of JSON, or has text write it for a person.
func (f *format) print(w io.Writer, v any, text func(w io.Writer)) error {
	if f.name != "json" {
		text(w)
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
