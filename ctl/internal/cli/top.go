package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/terminal"
	"github.com/httvps/httvps/ctl/internal/top"
)

const (
	// maxTop is how many sessions are looked at.
	maxTop = 10_000
	// topPage is how many of them come in one answer: the service's most.
	topPage = 500

	minInterval = time.Second
	maxInterval = time.Hour
)

// What a terminal is told: to show another screen without a cursor, to draw from its
// beginning, and to be as it was.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l"
	drawAnew    = "\x1b[H\x1b[2J"
	firstScreen = "\x1b[?25h\x1b[?1049l"
)

// topFlags are what is to be shown.
type topFlags struct {
	by, order string
	interval  time.Duration
	once      bool
	rows      int
	query     url.Values
}

// topLook is what was seen at one look.
type topLook struct {
	at       time.Time
	sessions []top.Session
	more     bool // than maxTop
}

func (a *app) topCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use: "top", Short: "Show who moves how much now, again and again", Args: exactly(0),
		Long: `Show who moves how much now, again and again, until Ctrl-C.

Speeds are averages over the last minute, as gateways report usage every few seconds;
DOWN and UP are what the sessions have moved since they began. At a terminal the table
keeps to its size. Elsewhere, with -o json and with --once it is printed once.`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "user", "what to sum up: user, device, gateway, region or session")
	flags.StringVar(&f.order, "sort", "rate", "what comes first: the highest rate (up and down), down, up, total (moved), sessions, or name")
	flags.DurationVar(&f.interval, "interval", 2*time.Second, "how long to wait between two looks, 1s to 1h")
	flags.BoolVar(&f.once, "once", false, "print it once")
	flags.IntVar(&f.rows, "rows", 0, "show at most `N` (default: as many as there is room for)")
	owners := []filter{
		filterBy("user", "only this `USER` (id or name)", "user_id", findUser),
		filterBy("device", "only this `DEVICE` (id)", "device_id", findDevice),
		filterBy("gateway", "only what is on this `GATEWAY` (id)", "gateway_id", findGateway),
	}
	texts := make([]string, len(owners))
	for i, o := range owners {
		flags.StringVar(&texts[i], o.flag, "", o.usage)
	}
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case !slices.Contains(top.Groupings, f.by):
			return misuse(cmd, "--by is %q, want %s", f.by, strings.Join(top.Groupings, ", "))
		case !slices.Contains(top.Orders, f.order):
			return misuse(cmd, "--sort is %q, want %s", f.order, strings.Join(top.Orders, ", "))
		case f.interval < minInterval || f.interval > maxInterval:
			return misuse(cmd, "--interval is %s, want %s to %s", f.interval, minInterval, maxInterval)
		case f.rows < 0:
			return misuse(cmd, "--rows is %d, want 0 or more", f.rows)
		}
		return nil
	}
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		f.query = url.Values{}
		for i, o := range owners {
			if texts[i] == "" {
				continue
			}
			name, id, err := o.value(cmd.Context(), c, texts[i])
			if err != nil {
				return err
			}
			f.query.Set(name, id)
		}
		look := func(ctx context.Context) (topLook, error) { return lookAt(ctx, c, f.query) }
		if f.once || a.json() || !a.StdoutIsTerminal {
			seen, err := look(cmd.Context())
			if err != nil {
				return err
			}
			return a.printTop(seen, f)
		}
		return a.watchTop(cmd.Context(), look, f)
	})
	return cmd
}

// lookAt asks for all live sessions that the query selects.
func lookAt(ctx context.Context, c *api.Client, query url.Values) (topLook, error) {
	seen := topLook{at: time.Now()}
	for cursor := ""; ; {
		page, err := c.Traffic().List(ctx, query, topPage, cursor)
		if err != nil {
			return seen, err
		}
		for _, object := range page.Items {
			m := object.Value
			seen.sessions = append(seen.sessions, top.Session{
				ID: m.ID, UserID: m.UserID, User: m.UserName, DeviceID: m.DeviceID, Device: m.DeviceName, GatewayID: m.GatewayID, Gateway: m.GatewayName,
				Region: m.Region, Up: m.Up, Down: m.Down, UpBPS: m.UpBPS, DownBPS: m.DownBPS,
			})
		}
		if page.Next == "" || len(page.Items) == 0 {
			return seen, nil
		}
		if len(seen.sessions) >= maxTop {
			seen.more = true
			return seen, nil
		}
		cursor = page.Next
	}
}

// summary is the line above a table.
func (l topLook) summary(total top.Row) string {
	line := fmt.Sprintf("%s  %d sessions  down %s  up %s", l.at.Format(time.TimeOnly), total.Sessions, top.Rate(total.DownBPS), top.Rate(total.UpBPS))
	if l.more {
		line += fmt.Sprintf("  (the newest %d: there are more)", total.Sessions)
	}
	return line
}

func (a *app) printTop(seen topLook, f topFlags) error {
	rows, total := top.Group(seen.sessions, f.by, f.order)
	if f.rows > 0 && len(rows) > f.rows {
		rows = rows[:f.rows]
	}
	if a.json() {
		if rows == nil {
			rows = []top.Row{}
		}
		return a.printJSON(map[string]any{
			"at": seen.at.UTC().Truncate(time.Second), "by": f.by, "items": rows, "more": seen.more,
			"total": map[string]any{"sessions": total.Sessions, "up_bps": total.UpBPS, "down_bps": total.DownBPS, "up": total.Up, "down": total.Down},
		})
	}
	lines := append([]string{seen.summary(total)}, top.Table(rows, f.by, 0, 0, terminal.Clean)...)
	_, err := io.WriteString(a.Stdout, strings.Join(lines, "\n")+"\n")
	return err
}

// watchTop draws the table again and again, and leaves the terminal as it was.
func (a *app) watchTop(ctx context.Context, look func(context.Context) (topLook, error), f topFlags) (err error) {
	if _, err := io.WriteString(a.Stdout, otherScreen); err != nil {
		return err
	}
	defer func() {
		if _, writeErr := io.WriteString(a.Stdout, firstScreen); err == nil {
			err = writeErr
		}
	}()
	var last topLook
	return top.Repeat(ctx, f.interval, look, func(seen topLook, problem error) error {
		if problem == nil {
			last = seen
		}
		return a.drawTop(last, problem, f)
	}, func(err error) bool {
		refused, ok := errors.AsType[*api.ProblemError](err)
		return ok && refused.Status >= http.StatusBadRequest && refused.Status < http.StatusInternalServerError && refused.Status != http.StatusTooManyRequests
	})
}

// drawTop draws one screen.
func (a *app) drawTop(seen topLook, problem error, f topFlags) error {
	width, height := 80, 24
	if a.StdoutSize != nil {
		if w, h := a.StdoutSize(); w > 0 && h > 0 {
			width, height = w, h
		}
	}
	rows, total := top.Group(seen.sessions, f.by, f.order)
	if f.rows > 0 && len(rows) > f.rows {
		rows = rows[:f.rows]
	}
	lines := []string{top.Cut(seen.summary(total), width)}
	if problem != nil {
		lines = append(lines, top.Cut(terminal.Clean("no answer: "+api.Hide(sentence(problem))), width))
	}
	lines = append(lines, top.Table(rows, f.by, width, max(height-len(lines), 1), terminal.Clean)...)
	_, err := io.WriteString(a.Stdout, drawAnew+strings.Join(lines[:min(len(lines), height)], "\r\n"))
	return err
}
