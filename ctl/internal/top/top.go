// Package top sums up what live sessions move, and shows it again and again.
package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Session is a live session with what it moves.
type Session struct {
	ID, UserID, User, DeviceID, Device, GatewayID, Gateway, Region string

	Up, Down       int64 // bytes since it began
	UpBPS, DownBPS int64 // bits per second
}

// Ways to put sessions together, and to order what comes out.
var (
	Groupings = []string{"user", "device", "gateway", "region", "session"}
	Orders    = []string{"rate", "down", "up", "total", "sessions", "name"}
)

// Row is what sessions with something in common move together.
type Row struct {
	ID       string `json:"id"` // of the user, device, gateway or session; the code of the region
	Name     string `json:"name"`
	Of       string `json:"of,omitempty"`      // the user of a device or a session
	Through  string `json:"through,omitempty"` // the gateway of a session
	Sessions int    `json:"sessions"`
	UpBPS    int64  `json:"up_bps"`
	DownBPS  int64  `json:"down_bps"`
	Up       int64  `json:"up"`
	Down     int64  `json:"down"`
}

func (r Row) with(s Session) Row {
	r.Sessions++
	r.UpBPS, r.DownBPS, r.Up, r.Down = r.UpBPS+s.UpBPS, r.DownBPS+s.DownBPS, r.Up+s.Up, r.Down+s.Down
	return r
}

// Group puts sessions together, in an order: the largest first, names from A to Z.
func Group(sessions []Session, by, order string) (rows []Row, total Row) {
	found := make(map[string]Row)
	for _, s := range sessions {
		var r Row
		switch by {
		case "device":
			r = Row{ID: s.DeviceID, Name: s.Device, Of: s.User}
		case "gateway":
			r = Row{ID: s.GatewayID, Name: s.Gateway}
		case "region":
			r = Row{ID: s.Region, Name: s.Region}
		case "session":
			r = Row{ID: s.ID, Name: s.Device, Of: s.User, Through: s.Gateway}
		default:
			r = Row{ID: s.UserID, Name: s.User}
		}
		if r.Name == "" { // it is gone, or has no name
			r.Name = r.ID
		}
		if before, seen := found[r.ID]; seen {
			r = before
		}
		found[r.ID] = r.with(s)
		total = total.with(s)
	}
	for _, r := range found {
		rows = append(rows, r)
	}
	key := func(r Row) int64 {
		switch order {
		case "down":
			return r.DownBPS
		case "up":
			return r.UpBPS
		case "total":
			return r.Up + r.Down
		case "sessions":
			return int64(r.Sessions)
		case "name":
			return 0
		default:
			return r.UpBPS + r.DownBPS
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(key(b), key(a)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return rows, total
}

// column is one of the table; those with a high rank go first when there is no room.
type column struct {
	title string
	rank  int
	left  bool
	of    func(Row) string
}

// columns of a table of things of a kind, whose name comes first and always stays.
func columns(by string) []column {
	all := []column{
		{strings.ToUpper(by), 0, true, func(r Row) string { return r.Name }},
		{"USER", 4, true, func(r Row) string { return r.Of }},
		{"GATEWAY", 5, true, func(r Row) string { return r.Through }},
		{"SESSIONS", 3, false, func(r Row) string { return fmt.Sprint(r.Sessions) }},
		{"DOWN/S", 1, false, func(r Row) string { return Rate(r.DownBPS) }},
		{"UP/S", 2, false, func(r Row) string { return Rate(r.UpBPS) }},
		{"DOWN", 6, false, func(r Row) string { return Bytes(r.Down) }},
		{"UP", 7, false, func(r Row) string { return Bytes(r.Up) }},
	}
	if by == "session" {
		all[0].title = "DEVICE"
	}
	return slices.DeleteFunc(all, func(c column) bool {
		switch {
		case c.rank == 0:
			return false
		case c.title == "USER":
			return by != "device" && by != "session"
		case c.title == "GATEWAY":
			return by != "session"
		case c.title == "SESSIONS":
			return by == "session"
		default:
			return false
		}
	})
}

const (
	gap = 2 // spaces between columns
	// leastName is how short names become before a column goes.
	leastName = 12
)

// Table shows rows in lines of at most width characters, height of them at most; 0: as
// many as it takes. Names are shown as clean makes them.
func Table(rows []Row, by string, width, height int, clean func(string) string) []string {
	shown, more := rows, 0
	if height > 0 && len(rows) > height-1 {
		shown = rows[:max(height-2, 0)]
		more = len(rows) - len(shown)
	}
	use := columns(by)
	var cells [][]string
	var widths []int
	for {
		cells, widths = [][]string{nil}, make([]int, len(use))
		for _, c := range use {
			cells[0] = append(cells[0], c.title)
		}
		for _, r := range shown {
			var line []string
			for _, c := range use {
				line = append(line, clean(c.of(r)))
			}
			cells = append(cells, line)
		}
		total := gap * (len(use) - 1)
		for i := range use {
			for _, line := range cells {
				widths[i] = max(widths[i], len([]rune(line[i])))
			}
			total += widths[i]
		}
		if width <= 0 || total <= width {
			break
		}
		if spare := widths[0] - (total - width); spare >= min(leastName, widths[0]) || len(use) == 1 {
			widths[0] = max(spare, 1)
			break
		}
		last := slices.MaxFunc(use, func(a, b column) int { return cmp.Compare(a.rank, b.rank) })
		use = slices.DeleteFunc(use, func(c column) bool { return c.rank == last.rank })
	}
	lines := make([]string, 0, len(cells)+1)
	for _, line := range cells {
		var b strings.Builder
		for i, cell := range line {
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			if use[i].left {
				cell += pad
			} else {
				cell = pad + cell
			}
			b.WriteString(cell)
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	if more > 0 {
		lines = append(lines, cut(fmt.Sprintf("and %d more", more), width))
	}
	return lines
}

// cut shortens a text to so many characters; 0: it stays.
func cut(text string, width int) string {
	runes := []rune(text)
	if width <= 0 || len(runes) <= width {
		return text
	}
	if width == 1 {
		return string(runes[:1])
	}
	return string(runes[:width-1]) + "…"
}

// Cut shortens a line to so many characters; 0: it stays.
func Cut(line string, width int) string { return cut(line, width) }

// Rate writes bits per second for people.
func Rate(bps int64) string {
	return scaled(bps, 1000, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"})
}

// Bytes writes bytes for people.
func Bytes(n int64) string { return scaled(n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}) }

func scaled(n int64, step float64, units []string) string {
	if float64(n) < step {
		return fmt.Sprintf("%d %s", n, units[0])
	}
	value, unit := float64(n)/step, 1
	for ; value >= step && unit < len(units)-1; unit++ {
		value /= step
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// maxPause is the longest time between two looks while there is no answer.
const maxPause = time.Minute

// Repeat looks and shows until ctx ends, every so often from one end to the next
// beginning, so that a slow service is not asked more. What went wrong is shown, unless
// fatal says that it will be no better; then it is returned. While there is no answer,
// pauses grow.
func Repeat[T any](
	ctx context.Context, every time.Duration, look func(context.Context) (T, error), show func(T, error) error, fatal func(error) bool,
) error {
	pause := every
	for {
		seen, err := look(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how it ends
		}
		if err != nil && fatal(err) {
			return err
		}
		if err := show(seen, err); err != nil {
			return err
		}
		if err != nil {
			pause = min(2*pause, max(maxPause, every))
		} else {
			pause = every
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}
