package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// listed is a gateway in the list; in JSON, the list is {"items":[…]}.
type listed struct {
	Gateway   string   `json:"gateway"`
	Region    string   `json:"region"`
	LatencyMS *float64 `json:"latency_ms"` // null: no answer
	InUse     bool     `json:"in_use"`
}

func newGateways(around surroundings) *cobra.Command {
	var form format
	cmd := &cobra.Command{
		Use:   "gateways",
		Short: "List the gateways that this device may use, and how far they are",
		Long: `List the gateways that this device may use, in the service's order, and how long
a TCP connection to each takes to open. The one that is in use has a star.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := around.look()
			if err != nil {
				return err
			}
			gateways, err := httvps.Gateways(cmd.Context(), httvps.Config{Store: store})
			if wished(cmd) {
				return nil
			}
			if err != nil {
				return err
			}
			var now status
			if err := control.Status(cmd.Context(), store.Path(), &now); err != nil && !errors.Is(err, control.ErrNobody) {
				return err
			}
			list := make([]listed, 0, len(gateways))
			for _, g := range gateways {
				l := listed{Gateway: host(g.URL), Region: g.Region, InUse: now.State == "connected" && now.Gateway == host(g.URL)}
				if g.RoundTrip > 0 {
					l.LatencyMS = milliseconds(g.RoundTrip)
				}
				list = append(list, l)
			}
			return form.print(cmd.OutOrStdout(), map[string]any{"items": list}, func(w io.Writer) {
				if len(list) == 0 {
					_, _ = fmt.Fprintln(w, around.speak.Say("no gateway is available"))
					return
				}
				table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				defer func() { _ = table.Flush() }()
				for _, l := range list {
					mark, latency := " ", around.speak.Say("no answer")
					if l.InUse {
						mark = "*"
					}
					if l.LatencyMS != nil {
						latency = fmt.Sprintf("%.1f ms", *l.LatencyMS)
					}
					_, _ = fmt.Fprintf(table, "%s %s\t%s\t%s\n", mark, plainText(l.Region), plainText(l.Gateway), latency)
				}
			})
		},
	}
	form.define(cmd)
	return cmd
}
