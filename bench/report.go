package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/stats"
)

// report is what a run writes.
type report struct {
	Time    time.Time           `json:"time"`
	Machine machineInfo         `json:"machine"`
	Options reportOptions       `json:"options"`
	Ratios  map[string]number   `json:"ratios"`
	Targets map[string]verdict  `json:"targets"`
	Figures map[string]measured `json:"figures"`
	Skipped map[string]string   `json:"skipped,omitempty"`

	order []figure
}

type reportOptions struct {
	Run    string `json:"run"`
	Rounds int    `json:"rounds"` // 0: by default
	Quick  bool   `json:"quick"`
}

type machineInfo struct {
	process.Machine
	System string `json:"system"`
	Go     string `json:"go"`

	Seconds number `json:"seconds"` // that the run took
	// Others is how much of the processors' time others used meanwhile: where it
	// is not next to nothing, the figures are not worth much.
	Others number `json:"others_cpu"`
}

// verdict is a target beside what was reached.
type verdict struct {
	Value      number `json:"value"`
	Target     number `json:"target"`
	Comparison string `json:"comparison"`
	Met        bool   `json:"met"`
}

type measured struct {
	Unit       string            `json:"unit"`
	Contenders map[string]spread `json:"contenders"`
}

type spread struct {
	Median number   `json:"median"`
	Min    number   `json:"min"`
	Max    number   `json:"max"`
	Rounds []number `json:"rounds"`
}

// number is a float64 whose JSON has four significant digits, and null for what
// is not a number.
type number float64

// MarshalJSON rounds.
func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 4, 64), 64)
	if err != nil {
		return nil, err
	}
	return json.Marshal(rounded)
}

// machine describes this machine, and what others did on it while bench ran.
func machine(m meter) machineInfo {
	return machineInfo{
		Machine: process.ThisMachine(runtime.NumCPU()), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		Seconds: number(m.took().Seconds()), Others: number(m.others()),
	}
}

func newReport(chosen []measurement, found *findings, info machineInfo, o options) *report {
	r := &report{
		Time: time.Now().UTC().Truncate(time.Second), Machine: info,
		Options: reportOptions{Run: o.run.String(), Rounds: o.rounds, Quick: o.quick},
		Ratios:  make(map[string]number), Targets: make(map[string]verdict), Figures: make(map[string]measured),
		Skipped: found.skipped,
	}
	for _, m := range chosen {
		r.order = append(r.order, m.figures...)
	}
	for _, f := range r.order {
		byContender := found.values[f.name]
		if len(byContender) == 0 {
			continue
		}
		shown := measured{Unit: f.unit, Contenders: make(map[string]spread)}
		for name, rounds := range byContender {
			shown.Contenders[name] = spreadOf(rounds)
		}
		r.Figures[f.name] = shown
		if ratio := ratioOf(f, found); !math.IsNaN(ratio) {
			r.Ratios[f.name] = number(ratio)
		}
	}
	for _, t := range targets() {
		if value, ok := r.value(t.name); ok {
			r.Targets[t.name] = verdict{Value: number(value), Target: number(t.wanted), Comparison: t.comparison(), Met: t.met(value)}
		}
	}
	return r
}

func spreadOf(rounds []float64) spread {
	s := stats.SpreadOf(rounds)
	shown := spread{Median: number(s.Median), Min: number(s.Min), Max: number(s.Max)}
	for _, v := range rounds {
		shown.Rounds = append(shown.Rounds, number(v))
	}
	return shown
}

// ratioOf is the median of the quotients of the rounds: what happened on the
// machine in one round happened to both. Figures that were not measured
// together are divided by their medians.
func ratioOf(f figure, found *findings) float64 {
	if f.over == "" {
		return math.NaN()
	}
	contender, other, elsewhere := strings.Cut(f.over, "/")
	if !elsewhere {
		other = f.name
	}
	mine, theirs := found.values[f.name][ours], found.values[other][contender]
	if other != f.name {
		return stats.Median(mine) / stats.Median(theirs)
	}
	return stats.Median(stats.Ratios(mine, theirs))
}

// value is what a target of that name judges: the ratio, or the figure itself.
func (r *report) value(name string) (float64, bool) {
	if ratio, ok := r.Ratios[name]; ok {
		return float64(ratio), true
	}
	if s, ok := r.Figures[name].Contenders[ours]; ok {
		return float64(s.Median), true
	}
	return 0, false
}

// write writes the report as JSON to a file, whose directory it makes.
func (r *report) write(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // a directory of results, for everyone
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644) //nolint:gosec // results, for everyone
}

// table writes the report for people.
func (r *report) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") }
	wanted := make(map[string]target)
	for _, t := range targets() {
		wanted[t.name] = t
	}
	columns := r.columns()
	line(append(append([]string{"figure", "unit"}, columns...), "ratio", "wanted", "")...)
	for _, f := range r.order {
		if _, skipped := r.Skipped[f.name]; skipped {
			continue
		}
		cells := []string{f.name, f.unit}
		for _, name := range columns {
			cells = append(cells, r.Figures[f.name].Contenders[name].cell())
		}
		ratio := ""
		if v, ok := r.Ratios[f.name]; ok {
			ratio = strconv.FormatFloat(float64(v), 'g', 3, 64)
		}
		want, verdict := "", ""
		if t, ok := wanted[f.name]; ok {
			want = strings.TrimSpace(t.comparison() + " " + strconv.FormatFloat(t.wanted, 'g', -1, 64) + " " + t.of)
			if !r.Targets[f.name].Met {
				verdict = "MISSED"
			}
		}
		line(append(cells, ratio, want, verdict)...)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range r.order {
		if reason, skipped := r.Skipped[f.name]; skipped {
			_, _ = fmt.Fprintf(out, "not measured: %s: %s\n", f.name, reason)
		}
	}
	_, err := fmt.Fprintf(out, "%s, %d cores, %s %s, %s; %.0f s; others used %.1f %% of the processors\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.System, r.Machine.Kernel, r.Machine.Go, float64(r.Machine.Seconds), 100*float64(r.Machine.Others))
	return err
}

// columns are the contenders that have figures.
func (r *report) columns() []string {
	var columns []string
	for _, name := range []string{ours, raw, alone, direct} {
		for _, m := range r.Figures {
			if _, ok := m.Contenders[name]; ok {
				columns = append(columns, name)
				break
			}
		}
	}
	return columns
}

// cell is a median with its extremes.
func (s spread) cell() string {
	if len(s.Rounds) == 0 {
		return "–"
	}
	if s.Min == s.Max {
		return short(s.Median)
	}
	return short(s.Median) + " (" + short(s.Min) + "–" + short(s.Max) + ")"
}

func short(n number) string {
	f := math.Abs(float64(n))
	switch {
	case f >= 100 || f == 0:
		return strconv.FormatFloat(float64(n), 'f', 0, 64)
	case f >= 10:
		return strconv.FormatFloat(float64(n), 'f', 1, 64)
	default:
		return strconv.FormatFloat(float64(n), 'f', 2, 64)
	}
}
