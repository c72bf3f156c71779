package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"

	"github.com/httvps/httvps/internal/reason"
)

// maxSupport is how many characters the text for people who cannot go on may have.
const maxSupport = 200

// Settings are what operators decide about the service while it runs.
type Settings struct {
	Support       string        // whom people turn to who cannot go on: a text or a URL; empty: nobody is named
	InvitationTTL time.Duration // of a user's invitation unless said otherwise
	APITokenTTL   time.Duration // of an operator's token unless said otherwise
}

// SettingsChange is what an operator decides about the settings. What is given without
// a value is the default again.
type SettingsChange struct {
	Support              To[string]
	InvitationTTLSeconds To[int]
	APITokenTTLDays      To[int]
}

// keptSettings are the settings as they are kept: those that are no defaults, so that
// a release with other defaults has those.
type keptSettings struct {
	Support              *string `json:"support,omitempty"`
	InvitationTTLSeconds *int    `json:"invitation_ttl_seconds,omitempty"`
	APITokenTTLDays      *int    `json:"api_token_ttl_days,omitempty"`
}

func (k keptSettings) settings() Settings {
	s := Settings{InvitationTTL: InvitationTTL, APITokenTTL: APITokenTTL}
	set(&s.Support, k.Support)
	if k.InvitationTTLSeconds != nil {
		s.InvitationTTL = time.Duration(*k.InvitationTTLSeconds) * time.Second
	}
	if k.APITokenTTLDays != nil {
		s.APITokenTTL = time.Duration(*k.APITokenTTLDays) * 24 * time.Hour
	}
	return s
}

// apply changes settings, and returns everything that is wrong with them then.
func (k *keptSettings) apply(f SettingsChange) error {
	f.Support.change(&k.Support)
	f.InvitationTTLSeconds.change(&k.InvitationTTLSeconds)
	f.APITokenTTLDays.change(&k.APITokenTTLDays)
	if k.Support != nil && *k.Support == "" {
		k.Support = nil
	}
	var c checks
	if k.Support != nil {
		c.that(validText(*k.Support, maxSupport) && oneLine(*k.Support), "support", "want at most 200 characters in one line, none of them a control character")
	}
	if k.InvitationTTLSeconds != nil {
		c.between(*k.InvitationTTLSeconds, int(time.Minute/time.Second), int(MaxInvitationTTL/time.Second), "invitation_ttl_seconds", "want 60 to 2592000 (30 days)")
	}
	if k.APITokenTTLDays != nil {
		c.between(*k.APITokenTTLDays, 1, int(MaxAPITokenTTL/(24*time.Hour)), "api_token_ttl_days", "want 1 to 365")
	}
	return c.err()
}

// oneLine reports whether text stays in its line, and in its order, on a terminal.
func oneLine(text string) bool {
	for _, r := range text {
		if unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Bidi_Control, r) {
			return false
		}
	}
	return true
}

func readSettings(ctx context.Context, tx Tx) (keptSettings, error) {
	var kept keptSettings
	text, err := tx.Setting(ctx, settingService)
	if errors.Is(err, ErrNotFound) {
		return kept, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &kept)
	}
	if err != nil {
		return kept, fmt.Errorf("settings of the service: %w", err)
	}
	return kept, nil
}

// Settings returns the settings of the service.
func (a *Authority) Settings(ctx context.Context) (Settings, error) {
	var kept keptSettings
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		kept, err = readSettings(ctx, tx)
		return err
	})
	return kept.settings(), err
}

// UpdateSettings changes the settings of the service, for all its backends at once.
func (a *Authority) UpdateSettings(ctx context.Context, f SettingsChange) (Settings, error) {
	var kept keptSettings
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil { // a row that is not there yet cannot be held
			return err
		}
		var err error
		if kept, err = readSettings(ctx, tx); err != nil {
			return err
		}
		before := showKept(kept).text()
		if err := kept.apply(f); err != nil {
			return err
		}
		after := showKept(kept).text()
		if after == before {
			return nil
		}
		return tx.PutSetting(ctx, settingService, after)
	})
	return kept.settings(), err
}

// showKept is what the audit log shows of settings: those that are no defaults.
func showKept(k keptSettings) view {
	v := view{}
	if k.Support != nil {
		v["support"] = *k.Support
	}
	if k.InvitationTTLSeconds != nil {
		v["invitation_ttl_seconds"] = *k.InvitationTTLSeconds
	}
	if k.APITokenTTLDays != nil {
		v["api_token_ttl_days"] = *k.APITokenTTLDays
	}
	return v
}

// invitationTTL is how long an invitation of a user lasts: ttl, or what the settings
// say when that is 0.
func invitationTTL(ctx context.Context, tx Tx, ttl time.Duration) (time.Duration, error) {
	if ttl != 0 {
		return ttl, nil
	}
	kept, err := readSettings(ctx, tx)
	return kept.settings().InvitationTTL, err
}

// tokenTTL is how long an API token lasts: ttl, or what the settings say when that is 0.
func (a *Authority) tokenTTL(ctx context.Context, ttl time.Duration) (time.Duration, error) {
	if ttl != 0 {
		return ttl, nil
	}
	settings, err := a.Settings(ctx)
	return cmp.Or(settings.APITokenTTL, APITokenTTL), err
}

// beyondThePerson are the refusals against which only somebody of the service helps.
// They go to who has proved to be a device or has an invitation: strangers are not told
// whose service it is.
var beyondThePerson = map[reason.Code]bool{
	reason.SubscriptionExpired: true, reason.NoActiveSubscription: true, reason.QuotaExceeded: true, reason.UserDisabled: true,
	reason.DeviceRevoked: true, reason.DeviceLimit: true,
}

// WithSupport adds to a refusal whom the person can turn to, when there is somebody. A
// refusal stays one while the settings cannot be read.
func (a *Authority) WithSupport(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || !beyondThePerson[refused.Reason] {
		return err
	}
	settings, failed := a.Settings(ctx)
	if failed != nil || settings.Support == "" {
		return err
	}
	said := *refused
	said.Support = settings.Support
	return &said
}
