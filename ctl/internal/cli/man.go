package cli

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/terminal"
	"github.com/httvps/httvps/ctl/internal/top"
	"github.com/httvps/httvps/internal/manpage"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "Print the manual page", Args: exactly(0),
		Long: `Print the manual page, made from the help of all commands:

  httvpsctl man > ~/.local/share/man/man1/httvpsctl.1`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return manpage.Write(a.Stdout, cmd.Root(), manpage.Page{
				Version: a.Version, Synopsis: "[--api URL] [-o table|json] COMMAND [ARGUMENT...]",
				Sections: []manpage.Entry{
					{Title: "EXIT STATUS", Entries: []manpage.Entry{
						{Title: "0", Text: "It is done."},
						{Title: "1", Text: "It failed, or the answer is no (why, audit verify, usage verify)."},
						{Title: "2", Text: "The command line, or a file that it names, has a mistake; nothing was done."},
						{Title: "3", Text: "apply --dry-run has found something to do."},
					}},
					{Title: "FILES", Entries: []manpage.Entry{
						{Title: "$XDG_CONFIG_HOME/httvps/ctl.json", Text: "The saved login; known.json beside it has who the services know this machine as."},
					}},
					{Title: "ENVIRONMENT", Entries: []manpage.Entry{
						{Title: "HTTVPS_API, HTTVPS_TOKEN, HTTVPS_CA", Text: "As the flags --api, --token and --ca."},
					}},
				},
			})
		},
	}
}

const (
	// maxSuggestions is how many names a shell is offered.
	maxSuggestions = 100
	// suggestionTime is how long somebody who pressed Tab waits for the service.
	suggestionTime = 2 * time.Second
)

// words that flags take; those of one command come before those of all.
var flagWords = map[string][]string{
	"output": {"table", "json"}, "quota-period": {"none", "day", "week", "month", "rolling"}, "quota-action": {"block", "throttle"},
	"role": {"owner", "admin", "support", "auditor"}, "state": {"live", "ended", "all"}, "order": {"newest", "oldest"},
	"deliveries state": {"pending", "delivered", "dead"},
	"top by":           top.Groupings, "top sort": top.Orders, "series by": {"hour", "day", "week", "month"},
}

// complete has shells offer what a command takes: words of flags, and names that the
// service knows, where a flag or an argument is one.
func (a *app) complete(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.complete(sub)
	}
	if _, args, ok := strings.Cut(cmd.Use, " "); ok && cmd.ValidArgsFunction == nil {
		first, _, _ := strings.Cut(args, " ")
		if suggest := a.suggestions(first); suggest != nil {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
				if len(given) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return suggest(cmd, begun)
			}
		}
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		words, known := flagWords[cmd.Name()+" "+f.Name]
		if !known {
			words, known = flagWords[f.Name]
		}
		kind, _ := pflag.UnquoteUsage(f)
		suggest := a.suggestions(kind)
		switch {
		case known:
			suggest = func(_ *cobra.Command, begun string) ([]string, cobra.ShellCompDirective) {
				return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !strings.HasPrefix(word, begun) }), cobra.ShellCompDirectiveNoFileComp
			}
		case f.Name == "user" || f.Name == "plan" || f.Name == "region":
			suggest = a.suggestions(strings.ToUpper(f.Name))
		case suggest == nil:
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return suggest(cmd, begun)
		}) // fails only for a flag that there is not
	})
}

// suggestions returns what finds names of the things that a word in help stands for; nil:
// they are not known by a name.
func (a *app) suggestions(word string) func(*cobra.Command, string) ([]string, cobra.ShellCompDirective) {
	switch word {
	case "USER", "USER|DEVICE":
		return suggest(a, users, "q", func(u api.User) string { return u.Name })
	case "PLAN":
		return suggest(a, plans, "", func(p api.Plan) string { return p.Name })
	case "REGION":
		return suggest(a, regions, "", func(r api.Region) string { return r.Code })
	case "SERVER":
		return suggest(a, outlineServers, "", func(o api.OutlineServer) string { return o.Name })
	default:
		return nil
	}
}

// suggest asks the service for names that begin so; search is the parameter for that, if
// there is one. Whoever is not logged in is offered nothing, and told nothing.
func suggest[T any](a *app, k kind[T], search string, name func(T) string) func(*cobra.Command, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, begun string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, suggestionTime)
		defer cancel()
		cmd.SetContext(ctx)
		c, err := a.client(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		query := url.Values{}
		if search != "" && begun != "" {
			query.Set(search, begun)
		}
		page, err := collect(ctx, k.things(c), query, maxSuggestions, "")
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]string, 0, len(page.Items))
		for _, object := range page.Items {
			if n := name(object.Value); strings.HasPrefix(strings.ToLower(n), strings.ToLower(begun)) && n == terminal.Clean(n) {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
