package control

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Operator is someone who runs the service. Its name is unique.
type Operator struct {
	ID         string
	Name       string
	Role       Role
	DisabledAt *time.Time // nil: enabled
	CreatedAt  time.Time
}

// APIToken is what is kept of an operator's token. Its role is covered by its
// operator's.
type APIToken struct {
	ID         string
	OperatorID string
	Role       Role
	Hash       []byte
	ExpiresAt  time.Time
	CreatedAt  time.Time
}

// Bearer is an operator with the token that he came with, whose role says what he
// may do with it.
type Bearer struct {
	Operator
	Token APIToken
	// Login is what the token is of, nil: of an API token. Then Token has what such a one
	// would have.
	Login *Login
}

// Credential is a new API token, which is nowhere else to be had.
type Credential struct {
	Operator  Operator
	Rescued   bool // the operator was there before
	TokenID   string
	Token     string // with the pin, if there is one
	ExpiresAt time.Time
}

// OpenBootstrap makes a new one-time bootstrap link, valid for BootstrapTTL, in
// place of any earlier one. It returns an empty link when there is an operator.
func (a *Authority) OpenBootstrap(ctx context.Context) (string, error) {
	code, hash := newCode()
	link := a.link(a.AdminBase(), "bootstrap", code)
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		n, err := tx.CountOperators(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			link = ""
			return nil
		}
		return tx.PutSetting(ctx, settingBootstrap, bootstrapValue(hash, a.now().Add(BootstrapTTL)))
	})
	return link, err
}

// bootstrapValue is what is stored of a bootstrap code.
func bootstrapValue(hash []byte, expires time.Time) string {
	return hex.EncodeToString(hash) + " " + strconv.FormatInt(expires.UnixMicro(), 10)
}

// Rescue is for a service that nobody can get into any more, or that somebody
// should be put out of: it deletes the API tokens of all operators, their logins, and
// what they sign in with, and returns a new one-time link, valid for BootstrapTTL,
// with which Bootstrap gives the owner a new token. Without an operator it returns
// ErrNoOperator. revoked counts tokens and logins.
func (a *Authority) Rescue(ctx context.Context) (link string, revoked int, err error) {
	code, hash := newCode()
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		n, err := tx.CountOperators(ctx)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNoOperator
		}
		if revoked, err = tx.DeleteAPITokens(ctx); err != nil {
			return err
		}
		logins, err := tx.DeleteLogins(ctx)
		if err != nil {
			return err
		}
		revoked += logins
		if _, err := tx.DeleteSignIns(ctx); err != nil {
			return err
		}
		return tx.PutSetting(ctx, settingRescue, bootstrapValue(hash, a.now().Add(BootstrapTTL)))
	})
	if err != nil {
		return "", 0, err
	}
	return a.link(a.AdminBase(), "bootstrap", code), revoked, nil
}

// Bootstrap redeems a one-time code. While there is no operator that is the
// bootstrap code, which makes the first one, an owner called name; afterwards
// only the code of a rescue, which gives a new token to the owner there is.
func (a *Authority) Bootstrap(ctx context.Context, typed, name string) (Credential, error) {
	var c checks
	c.that(validName(name), "name", nameRule)
	if err := c.err(); err != nil {
		return Credential{}, err
	}
	code, ok := canonicalCode(typed)
	if !ok {
		return Credential{}, ErrInvalidInvitation
	}
	var credential Credential
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		operators, err := tx.CountOperators(ctx)
		if err != nil {
			return err
		}
		setting := settingBootstrap
		if operators > 0 {
			setting = settingRescue
		}
		operator := Operator{ID: newID(), Name: name, Role: RoleOwner, CreatedAt: a.now()}
		if operators > 0 {
			if operator, err = tx.OldestOperator(ctx, RoleOwner, ""); err != nil {
				return err
			}
		}
		ctx = acting(ctx, ActorOperator, operator.ID, operator.Name)
		if err := a.takeCode(ctx, tx, setting, code); err != nil {
			return err
		}
		if operators == 0 {
			if err := tx.InsertOperator(ctx, operator); err != nil {
				return err
			}
		}
		credential, err = a.newCredential(ctx, tx, operator, APITokenTTL)
		credential.Rescued = operators > 0
		return err
	})
	return credential, err
}

// takeCode uses up the code whose hash and end are in a setting.
func (a *Authority) takeCode(ctx context.Context, tx Tx, setting, code string) error {
	value, err := tx.Setting(ctx, setting)
	if errors.Is(err, ErrNotFound) {
		return ErrInvalidInvitation
	}
	if err != nil {
		return err
	}
	hash, expires, _ := strings.Cut(value, " ")
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil {
		return err
	}
	if hash != hex.EncodeToString(hashCode(code)) || !a.now().Before(time.UnixMicro(until)) {
		return ErrInvalidInvitation
	}
	taken, err := tx.TakeSetting(ctx, setting, value)
	if err != nil {
		return err
	}
	if !taken {
		return ErrInvalidInvitation
	}
	return nil
}

// devName is the name of everything that a development service makes itself.
const devName = "dev"

// DevAccess is what a development service hands out at its start.
type DevAccess struct {
	Invite string // link
	Token  string // API token
}

// OpenDev makes sure that a development service has an operator, a user, a plan
// and a subscription that runs, and returns a new invitation and a new API token.
func (a *Authority) OpenDev(ctx context.Context) (DevAccess, error) {
	var access DevAccess
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		now := a.now()
		operator, err := tx.OperatorByName(ctx, devName)
		if errors.Is(err, ErrNotFound) {
			operator = Operator{ID: newID(), Name: devName, Role: RoleOwner, CreatedAt: now}
			err = tx.InsertOperator(ctx, operator)
		}
		if err != nil {
			return err
		}
		user, err := tx.UserByName(ctx, devName)
		if errors.Is(err, ErrNotFound) {
			user = User{ID: newID(), Name: devName, CreatedAt: now}
			err = tx.InsertUser(ctx, user)
		}
		if err != nil {
			return err
		}
		if err := a.openDevSubscription(ctx, tx, user, now); err != nil {
			return err
		}
		credential, err := a.newCredential(ctx, tx, operator, DevTokenTTL)
		if err != nil {
			return err
		}
		code, hash := newCode()
		invitation := Invitation{ID: newID(), UserID: user.ID, CodeHash: hash, ExpiresAt: now.Add(InvitationTTL), CreatedAt: now}
		access = DevAccess{Invite: a.link(a.APIBase(), "join", code), Token: credential.Token}
		return tx.InsertInvitation(ctx, invitation)
	})
	return access, err
}

func (a *Authority) openDevSubscription(ctx context.Context, tx Tx, user User, now time.Time) error {
	plans, err := tx.Plans(ctx, devName, Page{Limit: 1})
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		plans = []Plan{newPlan(now)}
		plans[0].Name = devName
		if err := tx.InsertPlan(ctx, plans[0]); err != nil {
			return err
		}
	}
	entitlements, err := tx.Entitlements(ctx, user.ID, maxEntitlements)
	if err != nil {
		return err
	}
	if _, why := (Standing{User: User{}, Entitlements: entitlements}).Admit(now); why == "" {
		return nil
	}
	return tx.InsertSubscription(ctx, Subscription{ID: newID(), UserID: user.ID, PlanID: plans[0].ID, StartsAt: now, CreatedAt: now})
}

// localRegion is where the gateway of the same process stands.
const localRegion = "local"

// OpenLocalGateway makes sure that there is a region for the gateway of the
// same process and returns a new join link for it.
func (a *Authority) OpenLocalGateway(ctx context.Context) (string, error) {
	code, hash := newCode()
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		now := a.now()
		region, err := tx.RegionByCode(ctx, localRegion)
		if errors.Is(err, ErrNotFound) {
			region = Region{ID: newID(), Code: localRegion, Name: localRegion, CreatedAt: now}
			err = tx.InsertRegion(ctx, region)
		}
		if err != nil {
			return err
		}
		if err := dropPending(ctx, tx, region.ID); err != nil {
			return err
		}
		return tx.InsertGateway(ctx, Gateway{
			ID: newID(), Name: localRegion, RegionID: region.ID, JoinCodeHash: hash,
			JoinExpiresAt: now.Add(InvitationTTL), CreatedAt: now,
		})
	})
	return a.link(a.APIBase(), "gateway-join", code), err
}

// dropPending deletes gateways of the local region that were never joined: each
// start of the process leaves one when the gateway had joined already.
func dropPending(ctx context.Context, tx Tx, regionID string) error {
	gateways, err := tx.Gateways(ctx, regionID, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	for _, g := range gateways {
		if g.JoinedAt == nil && g.Name == localRegion {
			if err := tx.DeleteGateway(ctx, g.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
