package httvps

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
)

// EnrollOptions say who enrols. Store is required.
type EnrollOptions struct {
	// Store keeps the key and, at the end, the profile.
	Store Store

	// Name is what the operator will see, at most 100 characters; default "device".
	Name string

	// Platform is the kind of device, at most 64 characters; default the operating
	// system's name as Go calls it.
	Platform string

	// Replace is the id of a device of the same user that gives its place to this
	// one: it is revoked. The refusal device_limit has those that can be named.
	Replace string

	// NetDial opens the connections; nil means net.Dialer.
	NetDial NetDial
}

// enrolled is the service's answer to a device.
type enrolled struct {
	DeviceID    string   `json:"device_id"`
	Name        string   `json:"name"`
	UserName    string   `json:"user_name"`
	ServiceID   string   `json:"service_id"`
	ServiceName string   `json:"service_name"`
	API         []string `json:"api"`
	Knock       *Knock   `json:"knock"`
}

// Enroll redeems an invitation and saves the profile. When the answer was lost
// on its way, repeating it is safe as long as the store is the same: the
// service knows invitation and key again and gives the same answer.
//
// Errors are *RefusedError (codes invalid_invitation, device_limit, invalid_request
// for a name that is too long, …), *UnreachableError or an error of the store.
func Enroll(ctx context.Context, inv Invitation, opts EnrollOptions) (Profile, error) {
	if opts.Store == nil {
		return Profile{}, errors.New("enroll: no store")
	}
	if opts.Name == "" {
		opts.Name = "device"
	}
	if opts.Platform == "" {
		opts.Platform = runtime.GOOS
	}
	if err := checkBase(inv.API); err != nil {
		return Profile{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	if err := checkCode(inv.Code); err != nil {
		return Profile{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	inv.Code = strings.ToUpper(inv.Code) // its hash is over that
	service, err := newAPI([]string{inv.API}, inv.Pin, opts.NetDial)
	if err != nil {
		return Profile{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	key, err := opts.Store.Key(ctx)
	if err != nil {
		return Profile{}, err
	}
	public, err := publicKey(key)
	if err != nil {
		return Profile{}, err
	}

	answer, err := ask(ctx, service, func(ctx context.Context, on way) (enrolled, error) {
		return proven(func() (answer enrolled, err error) {
			text, nonce, err := challenge(ctx, on)
			if err != nil {
				return answer, err
			}
			code := sha256.Sum256([]byte(inv.Code))
			signature, err := prove(key, "enrol", code[:], public, nonce)
			if err != nil {
				return answer, err
			}
			request := map[string]string{
				"code":       inv.Code,
				"public_key": base64.RawURLEncoding.EncodeToString(public),
				"nonce":      text,
				"signature":  signature,
				"name":       opts.Name,
				"platform":   opts.Platform,
			}
			if opts.Replace != "" {
				request["replace"] = opts.Replace
			}
			err = call(ctx, on, http.MethodPost, "/api/v1/devices/enroll", "", request, &answer)
			return answer, err
		})
	})
	if err != nil {
		return Profile{}, err
	}
	profile := Profile{
		DeviceID:    answer.DeviceID,
		DeviceName:  answer.Name,
		UserName:    answer.UserName,
		ServiceID:   answer.ServiceID,
		ServiceName: answer.ServiceName,
		API:         answer.API,
		Pin:         inv.Pin,
		Knock:       answer.Knock,
		Invitation:  inv.Fingerprint(),
	}
	if len(profile.API) == 0 {
		profile.API = []string{inv.API}
	}
	if err := profile.Validate(); err != nil {
		return Profile{}, &UnreachableError{Errs: []error{fmt.Errorf("%s: %w", hostOf(inv.API), strange("the answer has no valid profile: %w", err))}}
	}
	if err := opts.Store.SaveProfile(ctx, profile); err != nil {
		return Profile{}, fmt.Errorf("the device is enrolled, but its profile could not be saved; repeat with the same link: %w", err)
	}
	return profile, nil
}
