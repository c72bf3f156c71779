package stats

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var nan = math.NaN()

func TestMedianIsTheMiddleAndLeavesItsInputAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64
		want   float64
	}{
		"none":          {nil, nan},
		"one":           {[]float64{3}, 3},
		"odd, unsorted": {[]float64{9, 1, 5}, 5},
		"even":          {[]float64{4, 1, 3, 2}, 2.5},
	} {
		t.Run(name, func(t *testing.T) {
			before := append([]float64(nil), tc.values...)
			if got := Median(tc.values); !cmp.Equal(got, tc.want, cmpopts.EquateNaNs()) {
				t.Errorf("Median = %v, want %v", got, tc.want)
			}
			if diff := cmp.Diff(before, tc.values, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the input has changed: %s", diff)
			}
		})
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for name, tc := range map[string]struct {
		values  []float64
		p, want float64
	}{
		"none":               {nil, 50, nan},
		"median of hundred":  {hundred, 50, 50},
		"99 of hundred":      {hundred, 99, 99},
		"100 of hundred":     {hundred, 100, 100},
		"99 of ten":          {hundred[:10], 99, 10},
		"95 of one":          {hundred[:1], 95, 1},
		"next to nothing":    {hundred, 0.001, 1},
		"out of what it can": {hundred, 200, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Percentile(tc.values, tc.p); !cmp.Equal(got, tc.want, cmpopts.EquateNaNs()) {
				t.Errorf("Percentile = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestJainTellsEqualFromUnequalShares(t *testing.T) {
	for name, tc := range map[string]struct {
		shares []float64
		want   float64
	}{
		"equal":             {[]float64{7, 7, 7, 7}, 1},
		"one has all":       {[]float64{5, 0, 0, 0}, 0.25},
		"half have all":     {[]float64{2, 2, 0, 0}, 0.5},
		"one to three":      {[]float64{1, 3}, 0.8},
		"nobody has any":    {[]float64{0, 0}, nan},
		"there is nobody":   {nil, nan},
		"scale is no share": {[]float64{1e9, 3e9}, 0.8},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Jain(tc.shares); !cmp.Equal(got, tc.want, cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)) {
				t.Errorf("Jain = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRatiosAreThoseOfRoundsThatHaveBoth(t *testing.T) {
	got := Ratios([]float64{2, 3, nan, 8, 1}, []float64{1, 0, 4, 2})
	if diff := cmp.Diff([]float64{2, 4}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSpreadOfNothingIsNothing(t *testing.T) {
	if got := SpreadOf(nil); !math.IsNaN(got.Median) || !math.IsNaN(got.Min) || !math.IsNaN(got.Max) {
		t.Errorf("SpreadOf(nil) = %v", got)
	}
	if diff := cmp.Diff(Spread{Median: 2, Min: 1, Max: 9}, SpreadOf([]float64{9, 1, 2})); diff != "" {
		t.Error(diff)
	}
}
