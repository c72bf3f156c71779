// Package stack starts the shipped binaries as a person would and waits for
// the line that says they are ready.
package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
	maxLog       = 1 << 20
)

// Dir returns the folder of the binaries: HTTVPS_BIN, or bin/ above the
// working directory.
func Dir() (string, error) {
	if dir := os.Getenv("HTTVPS_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "bin", "httvps")); err == nil {
			return filepath.Join(dir, "bin"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no bin/httvps here or above: run make build first")
		}
	}
}

// Process is one running binary.
type Process struct {
	name   string
	cmd    *exec.Cmd
	first  chan []byte // the first line of stdout
	exited chan struct{}
	err    error // of Wait, once exited
	log    *tail
}

// Start runs binary name from dir (see [Dir]). env is added to a bare
// environment. The process must be stopped with Stop or Kill, or end by
// itself.
func Start(dir, name string, env []string, args ...string) (*Process, error) {
	p := &Process{
		name:   name,
		cmd:    exec.Command(filepath.Join(dir, name), args...), //nolint:gosec,noctx // our own binaries, stopped by Stop
		first:  make(chan []byte, 1),
		exited: make(chan struct{}),
		log:    &tail{},
	}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, env...)
	p.cmd.Stderr = p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		r := bufio.NewReader(stdout)
		if line, err := r.ReadBytes('\n'); err == nil {
			p.first <- line
		}
		close(p.first)
		_, _ = io.Copy(io.Discard, r)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// Ready waits for the first line of output and decodes it into v.
func (p *Process) Ready(ctx context.Context, v any) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case line, ok := <-p.first:
		if !ok {
			<-p.exited
			return fmt.Errorf("%s ended with exit code %d before it was ready:\n%s", p.name, p.ExitCode(), p.Log())
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%s: its ready line: %w", p.name, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is not ready: %w\n%s", p.name, context.Cause(ctx), p.Log())
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitCode is the exit code of a process that has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is the last part of what it wrote to stderr.
func (p *Process) Log() string { return p.log.String() }

// Stop asks the process to end, as Ctrl-C does, and returns its exit code.
func (p *Process) Stop() (int, error) {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.exited:
		return p.ExitCode(), nil
	case <-time.After(stopTimeout):
		p.Kill()
		return -1, fmt.Errorf("%s did not end within %v:\n%s", p.name, stopTimeout, p.Log())
	}
}

// Kill ends the process at once (SIGKILL) and waits for that.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > maxLog {
		rest := t.buf.String()[maxLog/2:]
		t.buf.Reset()
		t.buf.WriteString(rest)
	}
	return t.buf.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
