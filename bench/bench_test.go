package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// TestMain plays a role when a test has started this program for one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := play(context.Background(), os.Args[1], os.Stdin, os.Stdout); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// Everything but speed: parts start, loads run, figures come, nothing is left.
func TestARunMeasuresWhoeverIsThere(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-rounds", "1", "-run", "^(stream_1_up|opens_32|echo_loaded_p50|bare_tls)$"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	here := []string{raw, direct}
	if o.bin = os.Getenv("HTTVPS_BIN"); o.bin != "" {
		here = everybody
	}
	chosen := choose(measurements(), o.run)
	for i, m := range chosen {
		chosen[i].contenders = slices.DeleteFunc(slices.Clone(m.contenders), func(name string) bool { return !slices.Contains(here, name) })
	}
	var progress strings.Builder
	e, err := newEnvironment(t.Context(), o, t.TempDir(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	found := e.measure(t.Context(), chosen)
	if err := errors.Join(e.close(), found.err()); err != nil {
		t.Errorf("%v\n%s", err, progress.String())
	}
	for _, m := range chosen {
		for _, name := range m.contenders {
			if got := found.values[m.figures[0].name][name]; len(got) != 1 || got[0] <= 0 {
				t.Errorf("%s of %s: %v, want one value", m.figures[0].name, name, got)
			}
		}
	}
}

func TestEachRoundBeginsWithAnotherContender(t *testing.T) {
	var firsts []string
	for round := range 4 {
		firsts = append(firsts, strings.Join(rotate([]string{"a", "b", "c"}, round), ""))
	}
	if diff := cmp.Diff([]string{"abc", "bca", "cab", "abc"}, firsts); diff != "" {
		t.Error(diff)
	}
}

func TestFiguresAndTargetsFitTogether(t *testing.T) {
	figures := make(map[string]figure)
	for _, m := range measurements() {
		if m.rounds < 3 {
			t.Errorf("%s has %d rounds, which is no median", m.names(), m.rounds)
		}
		for _, f := range m.figures {
			if _, twice := figures[f.name]; twice {
				t.Errorf("there are two figures %s", f.name)
			}
			figures[f.name] = f
		}
	}
	for _, f := range figures {
		contender, other, elsewhere := strings.Cut(f.over, "/")
		if elsewhere && figures[other].name == "" {
			t.Errorf("%s is divided by %s, which is not measured", f.name, other)
		}
		if contender != "" && contender != raw && contender != direct && contender != alone && contender != unresumable && contender != unpadded {
			t.Errorf("%s is divided by that of %s, who does not exist", f.name, contender)
		}
	}
	for _, target := range targets() {
		if figures[target.name].name == "" {
			t.Errorf("%s is wanted and not measured", target.name)
		}
	}
}

// The document explains every figure, so that nobody has to guess.
func TestTheDocumentExplainsEveryFigure(t *testing.T) {
	text, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measurements() {
		for _, f := range m.figures {
			if !strings.Contains(string(text), "`"+f.name+"`") {
				t.Errorf("docs/benchmarks.md does not explain `%s`", f.name)
			}
		}
	}
}

func TestChoosingFindsFiguresByName(t *testing.T) {
	for pattern, want := range map[string]int{"^cpu_per_gib_up$": 1, "^stream_1_": 2, "^opens": 2, "nothing like that": 0} {
		if got := len(choose(measurements(), regexp.MustCompile(pattern))); got != want {
			t.Errorf("%s finds %d measurements, want %d", pattern, got, want)
		}
	}
}

// scripted is a measurement with values from a table: contender, then round.
func scripted(name string, table map[string][]values) measurement {
	turn := make(map[string]int)
	return measurement{
		figures: []figure{{name: name, unit: "MiB/s", over: raw}, {name: name + "_jain", unit: "of 1"}}, contenders: []string{ours, raw}, rounds: 3, own: true,
		run: func(_ context.Context, _ *environment, who string) (values, error) {
			n := turn[who]
			turn[who]++
			if n >= len(table[who]) {
				return nil, errors.New("nothing more in the table")
			}
			return table[who][n], nil
		},
	}
}

func newTestReport(t *testing.T, chosen ...measurement) (*report, *findings) {
	t.Helper()
	var progress strings.Builder
	e := &environment{progress: &progress, started: time.Now()}
	found := e.measure(t.Context(), chosen)
	o, err := parseOptions([]string{"-quick"}, &progress)
	if err != nil {
		t.Fatal(err)
	}
	return newReport(chosen, found, machineInfo{}, o), found
}

func TestRatiosAreMediansOverTheRoundsAndTargetsAreJudged(t *testing.T) {
	speed := func(v ...float64) (list []values) {
		for _, x := range v {
			list = append(list, values{"stream_1_down": x, "stream_1_down_jain": 1})
		}
		return list
	}
	// The machine was slow in the second round, for both.
	r, found := newTestReport(t, scripted("stream_1_down", map[string][]values{ours: speed(90, 10, 120), raw: speed(100, 20, 150)}))
	if err := found.err(); err != nil {
		t.Fatal(err)
	}
	if got := float64(r.Ratios["stream_1_down"]); got != 0.8 {
		t.Errorf("ratio %v, want the median of 0.9, 0.5 and 0.8", got)
	}
	want := verdict{Value: 0.8, Target: 0.8, Comparison: ">=", Met: true}
	if diff := cmp.Diff(want, r.Targets["stream_1_down"]); diff != "" {
		t.Error(diff)
	}
	if got := r.Figures["stream_1_down"].Contenders[ours]; got.Median != 90 || got.Min != 10 || got.Max != 120 || len(got.Rounds) != 3 {
		t.Errorf("figure %+v", got)
	}
}

func TestAMissedTargetIsToldWithItsNumber(t *testing.T) {
	half := []values{{"opens_32": 1}, {"opens_32": 1}, {"opens_32": 1}}
	r, _ := newTestReport(t, scripted("opens_32", map[string][]values{ours: half, raw: half}))
	if v := r.Targets["opens_32"]; v.Met || v.Value != 1 {
		t.Errorf("verdict %+v, want missed with 1", v)
	}
	var table strings.Builder
	if err := r.table(&table); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`opens_32 .* 1 +>= 3\.5 × relay +MISSED`).MatchString(table.String()) {
		t.Errorf("the table does not say so:\n%s", table.String())
	}
}

func TestWhatFailsIsToldAndDoesNotStopTheRest(t *testing.T) {
	two := []values{{"a": 1}, {"a": 1}}
	three := []values{{"b": 1}, {"b": 1}, {"b": 1}}
	unavailable := measurement{
		figures: []figure{{name: "c"}}, contenders: []string{ours}, rounds: 3, own: true,
		run: func(context.Context, *environment, string) (values, error) {
			return nil, &unavailableError{"no such machine"}
		},
	}
	r, found := newTestReport(t, scripted("a", map[string][]values{ours: two, raw: two}), unavailable,
		scripted("b", map[string][]values{ours: three, raw: three}))
	if err := found.err(); err == nil || strings.Contains(err.Error(), "no such machine") {
		t.Errorf("err = %v, want that of a alone", err)
	}
	if r.Skipped["a"] == "" || r.Skipped["c"] != "c, httvps, round 1: no such machine" || r.Skipped["b"] != "" {
		t.Errorf("skipped %v", r.Skipped)
	}
	if r.Ratios["b"] != 1 {
		t.Errorf("b was not measured: %v", r.Ratios)
	}
}

func TestTheFileHasRatiosThatAreNumbersAlone(t *testing.T) {
	same := []values{{"stream_1_up": 1.0 / 3}, {"stream_1_up": 1.0 / 3}, {"stream_1_up": 1.0 / 3}}
	r, _ := newTestReport(t, scripted("stream_1_up", map[string][]values{ours: same, raw: same}))
	file := filepath.Join(t.TempDir(), "out", "latest.json")
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Ratios  map[string]float64
		Targets map[string]struct {
			Target     float64
			Comparison string
			Met        bool
		}
		Figures map[string]struct {
			Contenders map[string]struct{ Median float64 }
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Ratios["stream_1_up"] != 1 || !got.Targets["stream_1_up"].Met || got.Figures["stream_1_up"].Contenders[raw].Median != 0.3333 {
		t.Errorf("read back %+v", got)
	}
}

func TestWhatIsNotANumberIsNullAndMeetsNoTarget(t *testing.T) {
	text, err := json.Marshal([]number{number(math.NaN()), number(math.Inf(1)), 0.123456})
	if err != nil || string(text) != "[null,null,0.1235]" {
		t.Errorf("%s, %v", text, err)
	}
	for _, target := range targets() {
		if target.met(math.NaN()) {
			t.Errorf("%s is met by what is not a number", target.name)
		}
		if !target.met(target.wanted) {
			t.Errorf("%s is not met by %v itself", target.name, target.wanted)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "-1"}, {"-rounds", "101"}, {"-run", "("}, {"-unknown"}, {"word"}} {
		var stderr strings.Builder
		if _, err := parseOptions(args, &stderr); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
