package main

import (
	"fmt"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// limits are what the gateway allows, as status -o json prints it.
type limits struct {
	Streams   int        `json:"streams"`
	UDP       int        `json:"udp"`
	SpeedUp   *int64     `json:"speed_up_bps"`   // null: there is no limit
	SpeedDown *int64     `json:"speed_down_bps"` // likewise
	Until     *time.Time `json:"until"`          // null: without an end
}

func limitsOf(l httvps.Limits) *limits {
	shown := limits{Streams: l.Streams, UDP: l.UDP}
	if l.SpeedUp > 0 {
		shown.SpeedUp = &l.SpeedUp
	}
	if l.SpeedDown > 0 {
		shown.SpeedDown = &l.SpeedDown
	}
	if !l.Until.IsZero() {
		until := l.Until.UTC()
		shown.Until = &until
	}
	return &shown
}

// limitsText says what the gateway allows from now on.
func limitsText(l httvps.Limits, speak words.Language) string {
	speed := func(bits int64) string {
		if bits == 0 {
			return speak.Say("no limit")
		}
		return rate(bits)
	}
	return speak.Say("other limits from now on: %d connections at once, download %s, upload %s", l.Streams, speed(l.SpeedDown), speed(l.SpeedUp))
}

// noticeText says what is going to happen to the session.
func noticeText(n httvps.Notice, speak words.Language) string {
	if n.Quota > 0 {
		if n.Left == 0 {
			return speak.Say("the plan's traffic (%s) is used up", size(float64(n.Quota)))
		}
		return speak.Say("%s of the plan's %s of traffic are left", size(float64(n.Left)), size(float64(n.Quota)))
	}
	if n.At.IsZero() {
		return speak.Say("the session will end: %s", speak.Explain(n.Code))
	}
	in, at := soon(time.Until(n.At), speak), n.At.Local().Format(time.DateTime)
	switch n.Code {
	case "subscription_expired":
		return speak.Say("the subscription ends in %s (%s)", in, at)
	case "token_expired":
		return speak.Say("the session ends in %s (%s): the service has not given this device another token", in, at)
	default:
		return speak.Say("the session ends in %s (%s): %s", in, at, speak.Explain(n.Code))
	}
}

// soon is a time to come in words, days for what is far.
func soon(left time.Duration, speak words.Language) string {
	const day = 24 * time.Hour
	switch left = max(left, 0); {
	case left > 36*time.Hour:
		return speak.Days(int((left + day/2) / day))
	case left > 90*time.Second:
		return left.Round(time.Minute).String()
	default:
		return left.Round(time.Second).String()
	}
}

// rate is a number of bits per second as people read it.
func rate(bits int64) string {
	per := float64(bits)
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if per < 1000 {
			return fmt.Sprintf("%.4g %s", per, unit)
		}
		per /= 1000
	}
	return fmt.Sprintf("%.4g Gbit/s", per)
}
