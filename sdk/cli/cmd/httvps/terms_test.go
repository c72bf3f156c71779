package main

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func TestWhatIsGoingToHappenIsSaidInBothLanguages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		at := func(d time.Duration) string { return in(d).Local().Format(time.DateTime) }
		const day = 24 * time.Hour
		for name, tc := range map[string]struct {
			event            httvps.Event
			english, russian string
		}{
			"the subscription ends in days": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "subscription_expired", At: in(3 * day)}},
				"the subscription ends in 3 days (" + at(3*day) + ")", "подписка закончится через 3 дня (" + at(3*day) + ")",
			},
			"the subscription ends in minutes": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "subscription_expired", At: in(10 * time.Minute)}},
				"the subscription ends in 10m0s (" + at(10*time.Minute) + ")", "подписка закончится через 10m0s (" + at(10*time.Minute) + ")",
			},
			"no other token": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "token_expired", At: in(time.Minute)}},
				"the session ends in 1m0s (" + at(time.Minute) + "): the service has not given this device another token",
				"сеанс закончится через 1m0s (" + at(time.Minute) + "): сервис не дал устройству нового токена",
			},
			"another reason": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "shutdown"}},
				"the session will end: " + words.English.Explain("shutdown"), "сеанс закончится: " + words.Russian.Explain("shutdown"),
			},
			"little is left": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "quota_exceeded", Left: 5 << 30, Quota: 100 << 30}},
				"5.0 GiB of the plan's 100.0 GiB of traffic are left", "осталось 5.0 GiB трафика из 100.0 GiB по тарифу",
			},
			"nothing is left": {
				httvps.Event{Kind: httvps.Noticed, Notice: httvps.Notice{Code: "quota_exceeded", Quota: 100 << 30}},
				"the plan's traffic (100.0 GiB) is used up", "трафик тарифа (100.0 GiB) израсходован",
			},
			"other limits": {
				httvps.Event{Kind: httvps.LimitsChanged, Limits: httvps.Limits{Streams: 64, SpeedDown: 12_500_000}},
				"other limits from now on: 64 connections at once, download 12.5 Mbit/s, upload no limit",
				"новые ограничения: соединений одновременно 64, загрузка 12.5 Mbit/s, отдача без ограничения",
			},
			"a connection is lost": {
				httvps.Event{Kind: httvps.Degraded, Gateway: "wss://a/b", Err: errors.New("EOF")},
				"the connection to a is lost (EOF); the session waits for another one", "соединение с a потеряно (EOF); сеанс ждёт другого",
			},
			"and another one is there": {
				httvps.Event{Kind: httvps.Resumed, Gateway: "wss://a/b", Err: errors.New("EOF")},
				"the session at a goes on", "сеанс с a продолжается",
			},
			"a connection was replaced": {httvps.Event{Kind: httvps.Resumed, Gateway: "wss://a/b"}, "", ""},
		} {
			for speak, want := range map[words.Language]string{words.English: tc.english, words.Russian: tc.russian} {
				stderr := newOutput()
				(&tunnel{stderr: stderr, speak: speak}).event(tc.event)
				if got := strings.TrimSuffix(stderr.String(), "\n"); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		}
	})
}

func TestStatusTellsASessionThatWaitsForItsConnection(t *testing.T) {
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := status{
		State: "degraded", Gateway: "gw.example", Region: "eu", Error: "EOF",
		Limits: limitsOf(httvps.Limits{Streams: 10, UDP: 5, SpeedDown: 1000, Until: until}),
	}
	if l := s.Limits; l.Streams != 10 || l.UDP != 5 || l.SpeedUp != nil || *l.SpeedDown != 1000 || !l.Until.Equal(until) {
		t.Errorf("limits %+v", l)
	}
	for speak, want := range map[words.Language][]string{
		words.English: {"the connection is lost; the session waits for another one", "gw.example", "EOF"},
		words.Russian: {"соединение потеряно; сеанс ждёт другого", "gw.example", "EOF"},
	} {
		out := newOutput()
		s.write(out, speak)
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%q is not in\n%s", text, out)
			}
		}
	}
}
