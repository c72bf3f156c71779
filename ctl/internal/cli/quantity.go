package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// unit is what may follow a number. Of several that say the same, the first is shown.
type unit struct {
	suffix string
	factor int64
}

var (
	sizeUnits = []unit{
		{"TiB", 1 << 40},
		{"TB", 1e12},
		{"GiB", 1 << 30},
		{"GB", 1e9},
		{"MiB", 1 << 20},
		{"MB", 1e6},
		{"KiB", 1 << 10},
		{"kB", 1e3},
	}
	rateUnits = []unit{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}}
)

// size is a number of bytes: the value of a flag, with a unit or without.
type size int64

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	n, err := quantity(text, sizeUnits, "100GiB")
	*s = size(n)
	return err
}

// Type implements pflag.Value.
func (s *size) Type() string { return "bytes" }

// String implements pflag.Value; a zero, which flags have unless said otherwise, is
// not shown in help.
func (s size) String() string { return shown(int64(s), sizeUnits) }

// rate is a number of bits per second.
type rate int64

// Set implements pflag.Value.
func (r *rate) Set(text string) error {
	n, err := quantity(text, rateUnits, "20M")
	*r = rate(n)
	return err
}

// Type implements pflag.Value.
func (r *rate) Type() string { return "bits" }

func (r rate) String() string { return shown(int64(r), rateUnits) }

func rateOr(bps *int64, none string) string {
	if bps == nil {
		return none
	}
	return rate(*bps).String() + "bit/s"
}

// quantity reads a whole number with one of units behind it, or none.
func quantity(text string, units []unit, example string) (int64, error) {
	number, factor := text, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return 0, fmt.Errorf("want a whole number, with a unit or without, like %s", example)
	}
	return n * factor, nil
}

// shown writes n with the largest unit that it is a whole number of.
func shown(n int64, units []unit) string {
	for _, u := range units {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
