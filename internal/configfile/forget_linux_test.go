package configfile

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const forgetful = "HTTVPS_TEST_FORGET"

// TestForgetful is the process that has a secret in its environment. It prints what
// is left.
func TestForgetful(t *testing.T) {
	if os.Getenv(forgetful) == "" {
		t.Skip("only as a process of its own")
	}
	Forget(forgetful, "HTTVPS_TEST_EMPTY", "HTTVPS_TEST_ABSENT")
	seen, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := exec.CommandContext(t.Context(), "env").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.Write(append(seen, inherited...)) // its reader fails without it
}

func TestAForgottenVariableIsNotShownNorInherited(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestForgetful$")
	child.Env = append(os.Environ(), "HTTVPS_TEST_BEFORE=kept1", forgetful+"=S3cret", "HTTVPS_TEST_EMPTY=", "HTTVPS_TEST_BEHIND=kept2")
	out, err := child.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "S3cret") {
		t.Errorf("the secret is shown: %q", out)
	}
	for _, kept := range []string{"HTTVPS_TEST_BEFORE=kept1", "HTTVPS_TEST_BEHIND=kept2"} {
		if strings.Count(string(out), kept) != 2 {
			t.Errorf("%s is not left as it was: %q", kept, out)
		}
	}
}
