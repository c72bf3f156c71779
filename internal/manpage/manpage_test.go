package manpage_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/internal/manpage"
)

func page(t *testing.T) string {
	t.Helper()
	root := &cobra.Command{Use: "tool", Short: "Do things", Long: "What it is - and is not.\n\n  tool do it\n\n.hidden \\ 'line\n'quoted"}
	root.PersistentFlags().StringP("output", "o", "table", "how to `PRINT`")
	group := &cobra.Command{Use: "thing", Short: "Things", RunE: func(*cobra.Command, []string) error { return nil }}
	do := &cobra.Command{Use: "do THING", Short: "Do one", Long: "Do one:\n  tool thing do x\n  tool thing do y", Run: func(*cobra.Command, []string) {}}
	do.Flags().Int("times", 3, "how `N` often, ünd so on…")
	secret := &cobra.Command{Use: "secret", Hidden: true, Run: func(*cobra.Command, []string) {}}
	group.AddCommand(do, secret)
	root.AddCommand(group)
	var b bytes.Buffer
	err := manpage.Write(&b, root, manpage.Page{Version: "v1-2", Synopsis: "[-o X] COMMAND", Sections: []manpage.Entry{
		{Title: "EXIT STATUS", Entries: []manpage.Entry{{Title: "0", Text: "well"}}}, {Title: "NOTES", Text: "A note."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestThePageHasWhatHelpSays(t *testing.T) {
	text := page(t)
	for _, want := range []string{
		".TH TOOL 1 \"\" \"tool v1\\-2\"", "tool \\- Do things", ".SS tool thing do THING\n.PP\nDo one:\n.PP\n.nf\n  tool thing do x\n  tool thing do y\n.fi",
		".B \\-o, \\-\\-output PRINT\nhow to PRINT (default table)", "how N often, \\[u00FC]nd so on\\[u2026] (default 3)", "\\&.hidden \\e 'line\n\\&'quoted", ".SH EXIT STATUS\n.TP\n0\nwell", ".SH NOTES",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("it has a command that is hidden")
	}
}

// man itself finds nothing wrong with it, where there is one.
func TestManReadsThePage(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff here")
	}
	cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tutf8", "-ww", "-z")
	cmd.Stdin = strings.NewReader(page(t))
	if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("%v: %s", err, said)
	}
}
