package control

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
)

// Device is one enrolled key pair of a user.
type Device struct {
	ID         string
	UserID     string
	Name       string
	Platform   string
	PublicKey  ed25519.PublicKey
	Generation int64
	RevokedAt  *time.Time // nil: in use
	LastSeenAt *time.Time // when it last got an access token
	CreatedAt  time.Time
}

// Thumbprint names the device's key as access tokens do.
func (d Device) Thumbprint() string { return ticket.Thumbprint(d.PublicKey) }

// devicesWithoutPlan is how many devices a user may have before the first
// subscription says otherwise.
const devicesWithoutPlan = 1

const maxPlatform = 64 // characters

// Enrolment is a device's request to be let in.
type Enrolment struct {
	Code      string
	PublicKey ed25519.PublicKey
	Proof     Proof
	Name      string
	Platform  string
	Replace   string // the id of a device of the same user that is revoked for this one; empty: none
}

// maxReplaceable bounds the devices that are offered to be replaced.
const maxReplaceable = 100

// Enrolled is the answer to an Enrolment.
type Enrolled struct {
	Device   Device
	UserName string
	New      bool // false: the same code and key had been enrolled before
	Replaced string
	Knock    Knock
}

// Enroll redeems an invitation for a device's key. The same code with the same
// key again gives the same device, so that a lost answer costs nothing.
func (a *Authority) Enroll(ctx context.Context, e Enrolment) (Enrolled, error) {
	var c checks
	c.that(validName(e.Name), "name", nameRule)
	c.that(validText(e.Platform, maxPlatform), "platform", "want at most 64 characters, none of them a control character")
	if err := c.err(); err != nil {
		return Enrolled{}, err
	}
	code, ok := canonicalCode(e.Code)
	if !ok {
		return Enrolled{}, ErrInvalidInvitation
	}
	if err := a.checkCodeProof(purposeEnrol, code, e.PublicKey, e.Proof); err != nil {
		return Enrolled{}, err
	}
	device := Device{ID: newID(), Name: e.Name, Platform: e.Platform, PublicKey: e.PublicKey, Generation: 1}
	ctx = acting(ctx, ActorDevice, device.ID, device.Name)
	var enrolled Enrolled
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		invitation, err := tx.InvitationByCode(ctx, hashCode(code))
		if errors.Is(err, ErrNotFound) {
			return ErrInvalidInvitation
		}
		if err != nil {
			return err
		}
		told, err := a.deviceKnock(ctx, tx)
		if err != nil {
			return err
		}
		if invitation.UsedAt != nil {
			enrolled, err = enrolledBefore(ctx, tx, invitation, e.PublicKey)
			enrolled.Knock = told
			return err
		}
		if !now.Before(invitation.ExpiresAt) {
			return ErrInvalidInvitation
		}
		var old Device
		if e.Replace != "" { // held before the user, as by who decides about its sessions
			if old, err = tx.Device(ctx, e.Replace); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		user, err := tx.LockUser(ctx, invitation.UserID)
		if err != nil {
			return err
		}
		if user.DisabledAt != nil {
			return &RefusedError{Reason: reason.UserDisabled}
		}
		if e.Replace != "" {
			if old.UserID != user.ID || old.RevokedAt != nil {
				return &InvalidError{Fields: []FieldError{{Field: "replace", Detail: "this user has no such device in use"}}}
			}
			if err := a.revoke(ctx, tx, old); err != nil {
				return err
			}
		}
		limit, err := deviceLimit(ctx, tx, user, now)
		if err != nil {
			return err
		}
		device := device
		device.UserID, device.CreatedAt = user.ID, now
		inserted, err := tx.InsertDevice(ctx, device, limit)
		if err != nil {
			return err
		}
		if !inserted {
			devices, err := tx.DevicesInUse(ctx, user.ID, maxReplaceable)
			if err != nil {
				return err
			}
			return &RefusedError{Reason: reason.DeviceLimit, Devices: devices}
		}
		redeemed, err := tx.RedeemInvitation(ctx, invitation.ID, device.ID, now)
		if err != nil {
			return err
		}
		if !redeemed {
			return ErrInvalidInvitation
		}
		a.announce(tx, notice{
			Type: NoticeDeviceEnrolled, Object: device.ID, Data: noticeData{User: aboutUser(user), Device: aboutDevice(device)},
		})
		enrolled = Enrolled{Device: device, UserName: user.Name, New: true, Replaced: e.Replace, Knock: told}
		return nil
	})
	return enrolled, err
}

// enrolledBefore answers for an invitation that has been used.
func enrolledBefore(ctx context.Context, tx Tx, invitation Invitation, key ed25519.PublicKey) (Enrolled, error) {
	device, err := tx.Device(ctx, invitation.DeviceID)
	if errors.Is(err, ErrNotFound) {
		return Enrolled{}, ErrInvalidInvitation
	}
	if err != nil {
		return Enrolled{}, err
	}
	if !bytes.Equal(device.PublicKey, key) {
		return Enrolled{}, ErrInvalidInvitation
	}
	if device.RevokedAt != nil {
		return Enrolled{}, &RefusedError{Reason: reason.DeviceRevoked}
	}
	user, err := tx.User(ctx, device.UserID)
	if err != nil {
		return Enrolled{}, err
	}
	return Enrolled{Device: device, UserName: user.Name}, nil
}

// deviceLimit returns how many devices a user may have: what the running
// subscription says, else the last one. His own limit comes before all of them.
func deviceLimit(ctx context.Context, tx Tx, user User, now time.Time) (int, error) {
	if user.Limits.MaxDevices != nil {
		return *user.Limits.MaxDevices, nil
	}
	entitlements, err := tx.Entitlements(ctx, user.ID, maxEntitlements)
	if err != nil {
		return 0, err
	}
	if running, why := (Standing{Entitlements: entitlements}).Admit(now); why == "" {
		return running.Plan.MaxDevices, nil
	}
	if len(entitlements) > 0 {
		return entitlements[0].Plan.MaxDevices, nil
	}
	return devicesWithoutPlan, nil
}

// Issued is an access token and what goes with it.
type Issued struct {
	AccessToken string
	ExpiresIn   time.Duration
	Gateways    []Gateway
	Knock       Knock
}

// IssueToken gives a device that proves its key an access token. Whatever is
// wrong with the proof, and when there is no such device, the answer is
// ErrUnauthorized. While there is no room to write, only the time at which the device
// was seen is not kept.
func (a *Authority) IssueToken(ctx context.Context, deviceID string, proof Proof) (Issued, error) {
	var issued Issued
	issue := func(ctx context.Context, tx Tx) error {
		var err error
		issued, err = a.issue(ctx, tx, deviceID, proof)
		return err
	}
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := issue(ctx, tx); err != nil {
			return err
		}
		return tx.TouchDevice(ctx, deviceID, a.now())
	})
	if errors.Is(err, ErrStorageFull) {
		err = a.store.Read(ctx, issue)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		a.rememberRefusal(ctx, deviceID, "", refused.Reason)
	}
	return issued, err
}

func (a *Authority) issue(ctx context.Context, tx Tx, deviceID string, proof Proof) (Issued, error) {
	now := a.now()
	s, err := standing(ctx, tx, deviceID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Issued{}, err
	}
	key := s.Device.PublicKey
	if err != nil {
		key = decoy
	}
	if holds := a.tokenProofHolds(deviceID, key, proof); !holds || err != nil {
		return Issued{}, ErrUnauthorized
	}
	usable, why := s.usable(now)
	if why != "" {
		return Issued{}, &RefusedError{Reason: why}
	}
	keys, err := a.signingNow(ctx, tx)
	if err != nil {
		return Issued{}, err
	}
	token, err := keys.signer.Sign(ticket.Claims{
		ID: newID(), Device: s.Device.ID, Generation: s.Device.Generation, KeyThumbprint: s.Device.Thumbprint(),
		IssuedAt: now, ExpiresAt: now.Add(AccessTokenTTL),
	})
	if err != nil {
		return Issued{}, err
	}
	gateways, err := a.reachable(ctx, tx, s.Device.ID, allowedRegions(usable), now)
	if err != nil {
		return Issued{}, err
	}
	told, err := a.deviceKnock(ctx, tx)
	return Issued{AccessToken: token, ExpiresIn: AccessTokenTTL, Gateways: gateways, Knock: told}, err
}

// AuthenticateDevice returns the id of the device that an access token was made for.
// A device that is revoked or whose user is disabled is refused for that.
func (a *Authority) AuthenticateDevice(ctx context.Context, accessToken string) (string, error) {
	var device string
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		keys, err := a.signingNow(ctx, tx)
		if err != nil {
			return err
		}
		claims, err := keys.verifier.Verify(accessToken)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnauthorized, err)
		}
		if claims.Expired(now) {
			return fmt.Errorf("%w: %w", ErrUnauthorized, errTokenExpired)
		}
		s, err := standing(ctx, tx, claims.Device)
		if errors.Is(err, ErrNotFound) {
			return ErrUnauthorized
		}
		if err != nil {
			return err
		}
		if s.Device.Thumbprint() != claims.KeyThumbprint || s.Device.Generation != claims.Generation {
			return ErrUnauthorized
		}
		if _, why := s.usable(now); why == reason.DeviceRevoked || why == reason.UserDisabled {
			return &RefusedError{Reason: why}
		}
		device = s.Device.ID
		return nil
	})
	return device, err
}

// GatewaysFor lists the gateways that a device may use, all or those of a region, in
// the order in which it should try them.
func (a *Authority) GatewaysFor(ctx context.Context, deviceID, region string) ([]Gateway, error) {
	var gateways []Gateway
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		gateways = nil
		s, err := standing(ctx, tx, deviceID)
		if errors.Is(err, ErrNotFound) {
			return ErrUnauthorized // it went a moment ago
		}
		if err != nil {
			return err
		}
		usable, why := s.usable(now)
		if why != "" {
			return &RefusedError{Reason: why}
		}
		allowed := allowedRegions(usable)
		if region != "" {
			if len(allowed) > 0 && !slices.Contains(allowed, region) {
				return nil
			}
			allowed = []string{region}
		}
		gateways, err = a.reachable(ctx, tx, deviceID, allowed, now)
		return err
	})
	return gateways, err
}

// errTokenExpired goes with ErrUnauthorized for a genuine token that is too old.
var errTokenExpired = errors.New("token expired")

// IsTokenExpired reports whether err says that a genuine token is too old.
func IsTokenExpired(err error) bool { return errors.Is(err, errTokenExpired) }

// Device returns a device.
func (a *Authority) Device(ctx context.Context, id string) (Device, error) {
	return get(ctx, a, id, Tx.Device)
}

// Devices lists devices, all or a user's.
func (a *Authority) Devices(ctx context.Context, userID string, page Page) ([]Device, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Device, error) { return tx.Devices(ctx, userID, page) })
}

// SearchDevices lists devices whose name begins with words, in the order of names.
func (a *Authority) SearchDevices(ctx context.Context, words string, page Page) ([]Device, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Device, error) { return tx.SearchDevices(ctx, words, page) })
}

// RenameDevice changes a device's name.
func (a *Authority) RenameDevice(ctx context.Context, id, name string) (Device, error) {
	var c checks
	c.that(validName(name), "name", nameRule)
	if err := c.err(); err != nil {
		return Device{}, err
	}
	return a.changeDevice(ctx, id, func(ctx context.Context, tx Tx) error { return tx.RenameDevice(ctx, id, name) })
}

// RevokeDevice ends a device for good: its key is refused from now on, and
// gateways are told to close its sessions.
func (a *Authority) RevokeDevice(ctx context.Context, id string) (Device, error) {
	return a.changeDevice(ctx, id, func(ctx context.Context, tx Tx) error { return a.revokeDevice(ctx, tx, id) })
}

func (a *Authority) revokeDevice(ctx context.Context, tx Tx, id string) error {
	device, err := tx.Device(ctx, id)
	if err != nil || device.RevokedAt != nil {
		return err
	}
	return a.revoke(ctx, tx, device)
}

func (a *Authority) revoke(ctx context.Context, tx Tx, device Device) error {
	if err := tx.RevokeDevice(ctx, device.ID, a.now()); err != nil {
		return err
	}
	user, err := tx.PeekUser(ctx, device.UserID)
	if err != nil {
		return err
	}
	a.announce(tx, notice{
		Type: NoticeDeviceRevoked, Object: device.ID, Data: noticeData{User: aboutUser(user), Device: aboutDevice(device)},
	})
	return a.tellAbout(ctx, tx, Event{
		Kind: EventDeviceRevoked, DeviceID: device.ID, UserID: device.UserID, Reason: string(reason.DeviceRevoked),
	})
}

func (a *Authority) changeDevice(ctx context.Context, id string, change func(context.Context, Tx) error) (Device, error) {
	var device Device
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Device(ctx, id); err != nil {
			return err
		}
		if err := change(ctx, tx); err != nil {
			return err
		}
		var err error
		device, err = tx.Device(ctx, id)
		return err
	})
	return device, err
}
