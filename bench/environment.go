package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/service"
)

// unsent bounds what waits in the origin's system for a reader on this machine,
// in bytes.
const unsent = 256 << 10

// environment is what measurements work with.
type environment struct {
	options  options
	dir      string // for everything that is made; goes away with the run
	progress io.Writer
	started  time.Time

	originAt string
	origin   *process.Process
	running  map[string]contender
	links    map[string]*linked
	services int
}

func newEnvironment(ctx context.Context, o options, dir string, progress io.Writer) (*environment, error) {
	e := &environment{options: o, dir: dir, progress: progress, started: time.Now(), running: make(map[string]contender), links: make(map[string]*linked)}
	var err error
	if e.origin, e.originAt, err = startPart(ctx, service.Here, "origin", originSpec{Listen: "127.0.0.1:0", Unsent: unsent}); err != nil {
		return nil, fmt.Errorf("start the origin: %w", err)
	}
	return e, nil
}

// close ends everything that was started.
func (e *environment) close() error {
	var problems []error
	for _, c := range e.running {
		problems = append(problems, c.stop())
	}
	for _, l := range e.links {
		problems = append(problems, l.close())
	}
	problems = append(problems, e.origin.Stop())
	return errors.Join(problems...)
}

// short is how long something takes: less where the run is to be quick.
func (e *environment) short(d time.Duration) time.Duration {
	if e.options.quick {
		return d / 4
	}
	return d
}

func (e *environment) say(format string, args ...any) {
	_, _ = fmt.Fprintf(e.progress, "%5.0fs  "+format+"\n", append([]any{time.Since(e.started).Seconds()}, args...)...)
}
