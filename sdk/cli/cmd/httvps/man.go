package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man",
		Short: "Print the manual page",
		Long: `Print the manual page, made from the help of all commands:

  httvps man > ~/.local/share/man/man1/httvps.1`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeMan(cmd.OutOrStdout(), cmd.Root())
		},
	}
}

// writeMan writes the page in the language of man(7).
func writeMan(w io.Writer, root *cobra.Command) error {
	b := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(b, ".TH HTTVPS 1 \"\" \"httvps %s\" \"User Commands\"\n", roff(version))
	_, _ = fmt.Fprintf(b, ".SH NAME\nhttvps \\- %s\n", roff(root.Short))
	_, _ = fmt.Fprint(b, ".SH SYNOPSIS\n.B httvps\n[\\-\\-home DIR] COMMAND [ARGUMENT...]\n.SH DESCRIPTION\n")
	manText(b, root.Long)
	manFlags(b, root.PersistentFlags())
	_, _ = fmt.Fprint(b, ".SH COMMANDS\n")
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		_, _ = fmt.Fprintf(b, ".SS %s\n", roff("httvps "+cmd.Use))
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		if cmd.Name() == "completion" {
			text = "Print the completion of a shell: bash, zsh, fish or powershell. Its --help says how to load it."
		}
		manText(b, text)
		manFlags(b, cmd.LocalNonPersistentFlags())
	}
	_, _ = fmt.Fprint(b, ".SH FILES\n.TP\n$XDG_CONFIG_HOME/httvps/\nThe home: device.key, device.json, and, while httvps connect runs, control.sock.\n")
	_, _ = fmt.Fprint(b, ".SH ENVIRONMENT\n.TP\nLC_ALL, LC_MESSAGES, LANG\nWhere these ask for Russian, what the command says while it works is in Russian.\n")
	return b.Flush()
}

// manText writes paragraphs; those that are indented stay as they are.
func manText(w io.Writer, text string) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(part, " ") {
			_, _ = fmt.Fprintf(w, ".PP\n.nf\n%s\n.fi\n", roff(part))
			continue
		}
		_, _ = fmt.Fprintf(w, ".PP\n%s\n", roff(part))
	}
}

func manFlags(w io.Writer, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, text := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			text += " (default " + f.DefValue + ")"
		}
		_, _ = fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(name), roff(text))
	})
}

// roff is text as man(7) shows it unchanged.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
