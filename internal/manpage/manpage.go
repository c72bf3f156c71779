// Package manpage makes a manual page of a command from its help, so that the two say
// the same.
package manpage

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Page is what help does not say.
type Page struct {
	Version  string
	Synopsis string  // after the name, as "[--home DIR] COMMAND [ARGUMENT...]"
	Sections []Entry // in their order, after the commands
}

// Entry is a section, or one term in it.
type Entry struct {
	Title   string
	Text    string
	Entries []Entry
}

// Write writes the page of a command and all that it holds, in the language of man(7).
func Write(w io.Writer, root *cobra.Command, page Page) error {
	b := bufio.NewWriter(w)
	name := root.Name()
	_, _ = fmt.Fprintf(b, ".TH %s 1 \"\" \"%s %s\" \"User Commands\"\n", strings.ToUpper(name), roff(name), roff(page.Version))
	_, _ = fmt.Fprintf(b, ".SH NAME\n%s \\- %s\n", roff(name), roff(root.Short))
	_, _ = fmt.Fprintf(b, ".SH SYNOPSIS\n.B %s\n%s\n.SH DESCRIPTION\n", roff(name), roff(page.Synopsis))
	prose(b, root.Long)
	flags(b, root.PersistentFlags())
	_, _ = fmt.Fprint(b, ".SH COMMANDS\n")
	commands(b, root)
	for _, section := range page.Sections {
		_, _ = fmt.Fprintf(b, ".SH %s\n", roff(section.Title))
		if section.Text != "" {
			prose(b, section.Text)
		}
		for _, term := range section.Entries {
			_, _ = fmt.Fprintf(b, ".TP\n%s\n%s\n", roff(term.Title), roff(term.Text))
		}
	}
	return b.Flush()
}

// commands writes those below a command, and those below them: a command that only holds
// others is said in a sentence.
func commands(w io.Writer, parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		usage := strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use
		_, _ = fmt.Fprintf(w, ".SS %s\n", roff(usage))
		if cmd.Name() == "completion" { // whose help is a page for each shell
			prose(w, "Print the completion of a shell: bash, zsh, fish or powershell. Its --help says how to load it.")
			continue
		}
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		prose(w, text)
		flags(w, cmd.LocalNonPersistentFlags())
		commands(w, cmd)
	}
}

// prose writes paragraphs; those that are indented, also behind a line that is not, stay
// as they are.
func prose(w io.Writer, text string) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if lead, rest, ok := strings.Cut(part, "\n  "); ok && !strings.HasPrefix(part, " ") {
			_, _ = fmt.Fprintf(w, ".PP\n%s\n", roff(lead))
			part = "  " + rest
		}
		if strings.HasPrefix(part, " ") {
			_, _ = fmt.Fprintf(w, ".PP\n.nf\n%s\n.fi\n", roff(part))
			continue
		}
		_, _ = fmt.Fprintf(w, ".PP\n%s\n", roff(part))
	}
}

func flags(w io.Writer, set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
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
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
			text += " (default " + f.DefValue + ")"
		}
		_, _ = fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(name), roff(text))
	})
}

// roff is text as man(7) shows it unchanged, in ASCII: what reads it need not know the
// encoding.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	var ascii strings.Builder
	for _, r := range text {
		if r > unicode.MaxASCII {
			_, _ = fmt.Fprintf(&ascii, `\[u%04X]`, r)
		} else {
			ascii.WriteRune(r)
		}
	}
	text = ascii.String()
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
