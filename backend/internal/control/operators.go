package control

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// RoleOwner may do everything.
const RoleOwner = "owner"

// Operator is someone who runs the service. Its name is unique.
type Operator struct {
	ID        string
	Name      string
	Role      string
	CreatedAt time.Time
}

// APIToken is what is kept of an operator's token.
type APIToken struct {
	ID         string
	OperatorID string
	Hash       []byte
	ExpiresAt  time.Time
	CreatedAt  time.Time
}

// Credential is a new API token, which is nowhere else to be had.
type Credential struct {
	Operator  Operator
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

// Bootstrap redeems the bootstrap code: it makes the first operator, an owner.
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
		value, err := tx.Setting(ctx, settingBootstrap)
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
		taken, err := tx.TakeSetting(ctx, settingBootstrap, value)
		if err != nil {
			return err
		}
		operators, err := tx.CountOperators(ctx)
		if err != nil {
			return err
		}
		if !taken || operators > 0 {
			return ErrInvalidInvitation
		}
		operator := Operator{ID: newID(), Name: name, Role: RoleOwner, CreatedAt: a.now()}
		if err := tx.InsertOperator(ctx, operator); err != nil {
			return err
		}
		credential, err = a.newCredential(ctx, tx, operator, APITokenTTL)
		return err
	})
	return credential, err
}

func (a *Authority) newCredential(ctx context.Context, tx Tx, operator Operator, ttl time.Duration) (Credential, error) {
	token, hash := newAPIToken()
	row := APIToken{ID: newID(), OperatorID: operator.ID, Hash: hash, ExpiresAt: a.now().Add(ttl), CreatedAt: a.now()}
	if err := tx.InsertAPIToken(ctx, row); err != nil {
		return Credential{}, err
	}
	if a.opts.Pin != "" {
		token += "." + a.opts.Pin
	}
	return Credential{Operator: operator, TokenID: row.ID, Token: token, ExpiresAt: row.ExpiresAt}, nil
}

// AuthenticateOperator returns whose token this is, or ErrUnauthorized.
func (a *Authority) AuthenticateOperator(ctx context.Context, token string) (Operator, error) {
	hash, ok := hashAPIToken(token)
	if !ok {
		return Operator{}, ErrUnauthorized
	}
	var operator Operator
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		operator, err = tx.OperatorByToken(ctx, hash, a.now())
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Operator{}, ErrUnauthorized
	}
	return operator, err
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
		plans = []Plan{{
			ID: newID(), Name: devName, CreatedAt: now, MaxDevices: DefaultPlanDevices, MaxSessions: DefaultPlanSessions,
			MaxStreams: DefaultPlanStreams, MaxUDP: DefaultPlanUDP,
		}}
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
