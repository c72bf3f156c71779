package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// finding is one step in JSON, where they are {"ok":…,"connects":…,"items":[…]}.
type finding struct {
	Step   string   `json:"step"`
	Target string   `json:"target"`
	OK     bool     `json:"ok"`
	TookMS *float64 `json:"took_ms"`
	Reason string   `json:"reason"` // a code, where the service gave one
	Error  string   `json:"error"`
	Advice []string `json:"advice"`
}

func newDoctor(around surroundings) *cobra.Command {
	var form format
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why this device does not connect, and say what to do",
		Long: `Find out why this device does not connect, and say what to do. It goes through all
that a connection needs: the home, names, addresses, certificates, the clock, the
service's word, and every gateway. It may be used while httvps connect runs.

The exit code is 0 when the device can connect: a gateway lets it in, whatever is wrong
with others, with a way to the service or with the clock. Else it is that of the first
thing that is wrong, as of httvps connect.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := around.look()
			if err != nil {
				return err
			}
			var now status
			running := control.Status(cmd.Context(), store.Path(), &now) == nil
			var (
				wrong    error
				connects bool
				items    = []finding{}
			)
			last := httvps.StepSession // what shows that a gateway lets the device in
			if running {
				last = httvps.StepKnock
			}
			report := func(f httvps.Finding) {
				item := around.judge(f)
				items = append(items, item)
				if form.name != "json" {
					item.write(cmd.OutOrStdout(), around.speak, f)
				}
				if f.Err != nil && f.Step != httvps.StepClock && wrong == nil {
					wrong = stepError(f)
				}
				connects = connects || f.Step == last && f.Err == nil
			}
			httvps.Diagnose(cmd.Context(), httvps.DiagnoseOptions{Store: store, Agent: agent(), NoSession: running}, report)
			if wished(cmd) {
				return nil
			}
			if form.name != "json" && running {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), around.speak.Say("The session was not tried: httvps connect is running."))
			}
			if err := form.print(cmd.OutOrStdout(), map[string]any{"ok": wrong == nil, "connects": connects, "items": items}, func(w io.Writer) {
				switch {
				case wrong == nil:
					_, _ = fmt.Fprintln(w, around.speak.Say("Everything is as it should be."))
				case connects:
					_, _ = fmt.Fprintln(w, around.speak.Say("This device can connect, though not all is as it should be."))
				}
			}); err != nil || connects {
				return err
			}
			return wrong
		},
	}
	form.define(cmd)
	return cmd
}

// stepError is the error of a step, of the kind that its exit code goes by.
func stepError(f httvps.Finding) error {
	_, refused := errors.AsType[*httvps.RefusedError](f.Err)
	_, unreachable := errors.AsType[*httvps.UnreachableError](f.Err)
	if refused || unreachable || f.Step == httvps.StepProfile {
		return f.Err
	}
	return &httvps.UnreachableError{Errs: []error{fmt.Errorf("%s: %w", f.Target, f.Err)}}
}

// judge says what to do about a finding.
func (s surroundings) judge(f httvps.Finding) finding {
	item := finding{Step: string(f.Step), Target: f.Target, OK: f.Err == nil, TookMS: milliseconds(f.Took), Advice: []string{}}
	if f.Err == nil {
		return item
	}
	item.Error = f.Err.Error()
	if refused, ok := errors.AsType[*httvps.RefusedError](f.Err); ok {
		item.Reason = refused.Code
		item.Advice = append(item.Advice, waysOut(s.speak, "doctor", refused)...)
		return item
	}
	if errors.Is(f.Err, httvps.ErrNotEnrolled) {
		item.Advice = append(item.Advice, waysOut(s.speak, "doctor", httvps.ErrNotEnrolled)...)
		return item
	}
	if text, ok := advice[f.Step]; ok {
		item.Advice = append(item.Advice, s.speak.Say(text))
	}
	return item
}

// advice says what helps where the service has not answered.
var advice = map[httvps.Step]string{
	httvps.StepProfile: "The home is damaged; the message names the file. Restore it from a backup, or log out and enrol again.",
	httvps.StepDNS:     "The network's name server does not know the service, or is not to be reached. Try another network or name server.",
	httvps.StepTCP:     "Nothing answers there from this network: the service is down, or the way to it is blocked. Try another network; if that helps, tell the operator.",
	httvps.StepTLS:     "Somebody in between may be answering for the service: try another network. If it is the same there, the service has another certificate now: ask for a new invitation.",
	httvps.StepClock:   "Set the clock of this device. It connects all the same, but other programs may not.",
	httvps.StepToken:   "Nothing answers there from this network: the service is down, or the way to it is blocked. Try another network; if that helps, tell the operator.",
	httvps.StepKnock:   "What answers there is a website, not the tunnel: something in between may have changed the request, or the gateway has another address. Tell the operator.",
	httvps.StepSession: "Nothing answers there from this network: the service is down, or the way to it is blocked. Try another network; if that helps, tell the operator.",
}

// titles says what each step is about.
var titles = map[httvps.Step]string{
	httvps.StepProfile: "key and profile",
	httvps.StepDNS:     "name %s is resolved",
	httvps.StepTCP:     "%s answers",
	httvps.StepTLS:     "%s proves to be the service",
	httvps.StepClock:   "the clock",
	httvps.StepToken:   "the service lets this device in",
	httvps.StepKnock:   "gateway %s takes the knock",
	httvps.StepSession: "gateway %s opens a session",
}

// write tells a person.
func (f finding) write(w io.Writer, speak words.Language, of httvps.Finding) {
	mark := speak.Say("fine")
	switch {
	case of.Err != nil && of.Step == httvps.StepClock:
		mark = speak.Say("note")
	case of.Err != nil:
		mark = speak.Say("WRONG")
	}
	title := titles[of.Step]
	var args []any
	switch of.Step {
	case httvps.StepDNS, httvps.StepTCP, httvps.StepTLS, httvps.StepKnock, httvps.StepSession:
		args = append(args, of.Target)
	default:
	}
	_, _ = fmt.Fprintf(w, "%-7s %s (%.0f ms)\n", mark, speak.Say(title, args...), *f.TookMS)
	switch {
	case errors.Is(of.Err, httvps.ErrClock):
		_, _ = fmt.Fprintf(w, "        %s\n", speak.Say("this device's clock is off by %v", of.Skew.Round(time.Second)))
	case errors.Is(of.Err, context.DeadlineExceeded):
		_, _ = fmt.Fprintf(w, "        %s\n", speak.Say("no answer"))
	case of.Err != nil:
		_, _ = fmt.Fprintf(w, "        %s\n", plainText(f.Error))
	}
	for _, line := range f.Advice {
		_, _ = fmt.Fprintf(w, "        %s\n", line)
	}
}
