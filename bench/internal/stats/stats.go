// Package stats condenses what was measured: medians, percentiles, and how
// evenly something was shared.
package stats

import (
	"math"
	"slices"
)

// Median returns the middle of values, the mean of the two middle ones when
// their number is even, and NaN when there is none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// Percentile returns the smallest of sorted values that p percent of them do
// not exceed (the nearest rank), and NaN when there is none. p is over 0 and at
// most 100.
func Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Jain returns Jain's index of fairness: 1 when all shares are equal, 1/n when
// one of n has everything, NaN when nobody has anything.
func Jain(shares []float64) float64 {
	var sum, squares float64
	for _, s := range shares {
		sum += s
		squares += s * s
	}
	if squares == 0 {
		return math.NaN()
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// Spread is a median between its extremes.
type Spread struct {
	Median, Min, Max float64
}

// SpreadOf returns the spread of values; all NaN when there is none.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return Spread{Median(values), slices.Min(values), slices.Max(values)}
}

// Ratios returns the quotients of what was measured in the same rounds. A round
// in which one is missing (NaN) or the divisor is 0 is left out.
func Ratios(dividends, divisors []float64) []float64 {
	var ratios []float64
	for i := range min(len(dividends), len(divisors)) {
		if q := dividends[i] / divisors[i]; !math.IsNaN(q) && !math.IsInf(q, 0) {
			ratios = append(ratios, q)
		}
	}
	return ratios
}
