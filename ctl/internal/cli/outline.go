package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httvps/httvps/ctl/internal/api"
)

// findOutline takes an id or a name.
var findOutline = byName("Outline server", "name", (*api.Client).OutlineServers, func(o api.OutlineServer) (string, string) { return o.ID, o.Name })

var outlineServers = kind[api.OutlineServer]{
	name: "Outline server", arg: "SERVER", things: (*api.Client).OutlineServers, find: findOutline,
	columns: []column[api.OutlineServer]{
		{"ID", func(o api.OutlineServer) string { return o.ID }},
		{"NAME", func(o api.OutlineServer) string { return o.Name }},
		{"REGION", func(o api.OutlineServer) string { return o.Region }},
		{"STATUS", func(o api.OutlineServer) string { return o.Status }},
		{"SESSIONS", func(o api.OutlineServer) string { return fmt.Sprintf("%d/%d", o.Sessions, o.Capacity) }},
		{"PRIORITY", func(o api.OutlineServer) string { return count(o.Priority) }},
		{"WEIGHT", func(o api.OutlineServer) string { return count(o.Weight) }},
		{"HOST", func(o api.OutlineServer) string { return o.Host }},
		{"PORT", func(o api.OutlineServer) string { return count(o.Port) }},
	},
	details: []column[api.OutlineServer]{
		{"SINCE", func(o api.OutlineServer) string { return atOr(o.StatusSince, "") }},
		{"PROBED", func(o api.OutlineServer) string { return atOr(o.ProbedAt, "never") }},
		{"MANAGED", func(o api.OutlineServer) string { return yesNo(o.Managed) }},
		{"FALLBACK", func(o api.OutlineServer) string { return yesNo(o.Fallback) }},
		{"CIPHER", func(o api.OutlineServer) string { return o.Key.Cipher }},
		{"KEY", func(o api.OutlineServer) string {
			return fmt.Sprintf("%d, of %s", o.Key.Generation, at(o.Key.CreatedAt))
		}},
	},
}

func (a *app) outlineCommand() *cobra.Command {
	return a.noun("outline", "Outline servers, which traffic leaves through (SERVER is an id or a name)",
		a.outlineCreate(),
		listCommand(a, outlineServers, filterBy("region", "only those in this `REGION` (id or code)", "region_id", findRegion)),
		showCommand(a, outlineServers), a.outlineUpdate(),
		a.outlineSwitch("disable", "Let no session leave through one: those that do get another", true),
		a.outlineSwitch("enable", "Let sessions leave through one again", false),
		deleteCommand(a, outlineServers, "; sessions that leave through it get another"))
}

// outlineFlags are those that create and update share.
type outlineFlags struct {
	name, region, key, keyFile string
	weight, priority, capacity int
	managed, fallback          bool
}

func (o *outlineFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&o.name, "name", "", "what to call it: `NAME` (default: the name in the key, or the address)")
	flags.StringVar(&o.region, "region", "", "where it is: `REGION` (id or code)")
	flags.StringVar(&o.key, "key", "", "access `KEY` (ss://…), or - to read it from standard input; one given here can be seen in the list of processes: prefer - or --key-file")
	flags.StringVar(&o.keyFile, "key-file", "", "read the access key from `FILE`")
	flags.IntVar(&o.weight, "weight", 0, "its share of the sessions among servers of one priority; 0: no new ones (default: the service's)")
	flags.IntVar(&o.priority, "priority", 0, "servers with a higher number take sessions when those with lower ones cannot (default: the service's)")
	flags.IntVar(&o.capacity, "capacity", 0, "how many sessions it takes at once (default: the service's)")
	flags.BoolVar(&o.managed, "managed", false, "it refuses targets that are not public, as Outline servers do: gateways may leave names to it")
	flags.BoolVar(&o.fallback, "fallback", false, "it takes sessions of other regions that have no server left")
}

// fields are those that the command line has.
func (o *outlineFlags) fields(ctx context.Context, a *app, cmd *cobra.Command) (map[string]any, error) {
	fields := changed(cmd, map[string]any{
		"name": o.name, "region": o.region, "weight": o.weight, "priority": o.priority, "capacity": o.capacity,
		"managed": o.managed, "fallback": o.fallback,
	})
	if o.key != "" && o.keyFile != "" {
		return nil, misuse(cmd, "--key and --key-file say the same thing: give one")
	}
	key := o.key
	var err error
	switch {
	case o.keyFile != "":
		key, err = readKeyFile(o.keyFile)
	case key == "-":
		key, err = a.readSecret(ctx, "Access key (ss://…): ")
	}
	if err != nil {
		return nil, err
	}
	if key = strings.TrimSpace(key); key != "" {
		fields["access_key"] = key
	}
	return fields, nil
}

// readKeyFile returns the first line of a file.
func readKeyFile(path string) (string, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's own file
	if err != nil {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxInput))
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if err == nil && line == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("--key-file: %s: %w", path, err)
	}
	return line, nil
}

func (a *app) outlineCreate() *cobra.Command {
	var flags outlineFlags
	cmd := &cobra.Command{
		Use: "create --region REGION --key KEY", Short: "Add a server with its access key", Args: exactly(0),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if flags.keyFile != "" {
				return needs("region")(cmd, args)
			}
			return needs("region", "key")(cmd, args)
		},
		Long: `Add a server with its access key.

The key is an ss:// link, as an Outline server gives out. The service keeps it
sealed and never shows it again. Give - or --key-file to keep it out of the
list of processes and the shell's history.`,
	}
	flags.add(cmd.Flags())
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		fields, err := flags.fields(cmd.Context(), a, cmd)
		if err != nil {
			return err
		}
		return creating(a, cmd, c, outlineServers, fields, key)
	})
	return cmd
}

func (a *app) outlineUpdate() *cobra.Command {
	var flags outlineFlags
	cmd := &cobra.Command{Use: "update SERVER", Short: "Change a server, or give it another access key", Args: exactly(1)}
	flags.add(cmd.Flags())
	cmd.RunE = updating(a, outlineServers, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) {
		return flags.fields(cmd.Context(), a, cmd)
	})
	return cmd
}

func (a *app) outlineSwitch(verb, short string, disabled bool) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " SERVER", Short: short, Args: exactly(1)}
	cmd.RunE = updating(a, outlineServers, func(*cobra.Command, *api.Client) (map[string]any, error) {
		return map[string]any{"disabled": disabled}, nil
	})
	return cmd
}
