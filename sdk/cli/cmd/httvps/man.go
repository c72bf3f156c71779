package main

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/internal/manpage"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man",
		Short: "Print the manual page",
		Long: `Print the manual page, made from the help of all commands:

  httvps man > ~/.local/share/man/man1/httvps.1`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return manpage.Write(cmd.OutOrStdout(), cmd.Root(), manpage.Page{
				Version: version, Synopsis: "[--home DIR] COMMAND [ARGUMENT...]",
				Sections: []manpage.Entry{
					{Title: "FILES", Entries: []manpage.Entry{
						{Title: "$XDG_CONFIG_HOME/httvps/", Text: "The home: device.key, device.json, and, while httvps connect runs, control.sock."},
					}},
					{Title: "ENVIRONMENT", Entries: []manpage.Entry{
						{Title: "LC_ALL, LC_MESSAGES, LANG", Text: "Where these ask for Russian, what the command says while it works is in Russian."},
					}},
				},
			})
		},
	}
}
