// Package process starts programs, waits for the line that says they are ready,
// measures what they use, and ends them by their ids.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	stopTimeout = 10 * time.Second
	maxLog      = 64 << 10
)

// Process is a running program.
type Process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan []byte // of stdout
	exited chan struct{}
	log    tail
}

// Start runs cmd, of which it takes over standard input, output and error. The
// process must be ended with Stop, or end by itself.
func Start(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, cmd: cmd, lines: make(chan []byte, 16), exited: make(chan struct{})}
	cmd.Stderr = &p.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		r := bufio.NewReader(stdout)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				break
			}
			p.lines <- line // the programs that we start write few lines
		}
		close(p.lines)
		_ = cmd.Wait()
	}()
	return p, nil
}

// Send writes v as a line of JSON to the process's standard input.
func (p *Process) Send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: its standard input: %w", p.name, err)
	}
	return nil
}

// CloseInput ends the process's standard input, which ends those of our own.
func (p *Process) CloseInput() { _ = p.stdin.Close() }

// Receive waits for the next line of output and decodes its JSON into v.
func (p *Process) Receive(ctx context.Context, v any) error {
	select {
	case line, ok := <-p.lines:
		if !ok {
			<-p.exited
			return fmt.Errorf("%s ended with exit code %d:\n%s", p.name, p.cmd.ProcessState.ExitCode(), p.Log())
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%s: a line of its output: %w", p.name, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s says nothing: %w\n%s", p.name, context.Cause(ctx), p.Log())
	}
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Log is the last part of what it wrote to standard error.
func (p *Process) Log() string { return p.log.String() }

// Stop ends the process: by the end of its input and an interrupt, and where
// that does not help in time by SIGKILL.
func (p *Process) Stop() error {
	p.CloseInput()
	select {
	case <-p.exited:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	lines := p.lines
	for {
		select {
		case <-p.exited:
			return nil
		case _, ok := <-lines: // read, so that it can write its last ones
			if !ok {
				lines = nil
			}
		case <-timer.C:
			_ = p.cmd.Process.Kill()
			for lines != nil {
				if _, ok := <-lines; !ok {
					lines = nil
				}
			}
			<-p.exited
			return fmt.Errorf("%s did not end within %v:\n%s", p.name, stopTimeout, p.Log())
		}
	}
}

// StopAll stops processes in the order given.
func StopAll(processes ...*Process) error {
	var problems []error
	for _, p := range processes {
		if p != nil {
			problems = append(problems, p.Stop())
		}
	}
	return errors.Join(problems...)
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
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
