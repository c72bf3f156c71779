package configfile

import (
	"errors"
	"time"
)

// Duration is a time.Duration that is written in configuration as Go writes
// it: "30s", "1h30m". A number without a unit is refused, except 0.
type Duration time.Duration

var errDuration = errors.New(`want a duration with its unit, such as "30s" or "1h30m"`)

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes d as [Duration.String] does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration takes. Its error does not repeat
// the text.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return errDuration
	}
	*d = Duration(parsed)
	return nil
}
