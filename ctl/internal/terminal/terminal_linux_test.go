package terminal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httvps/httvps/ctl/internal/terminal"
)

// open returns both ends of a new pseudo-terminal: what a person sees and types
// at, and what a program has.
func open(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	var number int
	raw, err := person.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			if err == nil {
				number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		}), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO != 0
}

// awaitQuiet returns when what is typed is no longer shown.
func awaitQuiet(t *testing.T, f *os.File) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for echoes(t, f) {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

type line struct {
	text string
	err  error
}

func TestSecretIsReadAndNotShown(t *testing.T) {
	person, program := open(t)
	read := make(chan line, 1)
	go func() {
		text, err := terminal.Of(program).ReadSecret(t.Context())
		read <- line{text, err}
	}()
	awaitQuiet(t, program)
	if _, err := person.WriteString("wrong\x15hunter2\n"); err != nil { // Ctrl-U takes a line back
		t.Fatal(err)
	}
	if got := <-read; got != (line{"hunter2", nil}) {
		t.Fatalf("ReadSecret = %q, %v", got.text, got.err)
	}
	if !echoes(t, program) {
		t.Error("the terminal stays quiet afterwards")
	}
	// Whatever was shown before this mark has arrived once the mark has.
	if _, err := program.WriteString("mark"); err != nil {
		t.Fatal(err)
	}
	var shown []byte
	for buf := make([]byte, 64); !bytes.Contains(shown, []byte("mark")); {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, buf[:n]...)
	}
	if bytes.Contains(shown, []byte("hunter2")) {
		t.Errorf("the terminal showed %q", shown)
	}
}

func TestTerminalIsRestoredWhenTheWaitIsOver(t *testing.T) {
	_, program := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan line, 1)
	go func() {
		text, err := terminal.Of(program).ReadSecret(ctx)
		read <- line{text, err}
	}()
	awaitQuiet(t, program)
	cancel()
	if got := <-read; got.text != "" || !errors.Is(got.err, context.Canceled) {
		t.Errorf("ReadSecret = %q, %v, want context.Canceled", got.text, got.err)
	}
	if !echoes(t, program) {
		t.Error("the terminal stays quiet")
	}
}

func TestClosedTerminalIsAnError(t *testing.T) {
	person, program := open(t)
	read := make(chan line, 1)
	go func() {
		text, err := terminal.Of(program).ReadLine(t.Context())
		read <- line{text, err}
	}()
	if _, err := person.WriteString("\x04"); err != nil { // Ctrl-D
		t.Fatal(err)
	}
	if got := <-read; !errors.Is(got.err, terminal.ErrClosed) {
		t.Errorf("ReadLine = %q, %v, want ErrClosed", got.text, got.err)
	}
}

func TestFilesAreNoTerminals(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if terminal.Of(f) != nil {
		t.Errorf("%s passes for a terminal", os.DevNull)
	}
}

func TestATerminalSaysHowLargeItIs(t *testing.T) {
	person, program := open(t)
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 91, Row: 17}); err != nil {
		t.Fatal(err)
	}
	if width, height := terminal.Of(program).Size(); width != 91 || height != 17 {
		t.Errorf("%d characters and %d lines, want 91 and 17", width, height)
	}
}
