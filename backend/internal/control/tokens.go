package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// newCredential makes a token that may do all that its operator may.
func (a *Authority) newCredential(ctx context.Context, tx Tx, operator Operator, ttl time.Duration) (Credential, error) {
	row, token := a.mintToken(operator.ID, operator.Role, ttl)
	if err := tx.InsertAPIToken(ctx, row); err != nil {
		return Credential{}, err
	}
	return Credential{Operator: operator, TokenID: row.ID, Token: token, ExpiresAt: row.ExpiresAt}, nil
}

// mintToken returns what is kept of a new token, and the token.
func (a *Authority) mintToken(operatorID string, role Role, ttl time.Duration) (APIToken, string) {
	token, hash := newAPIToken()
	if a.opts.Pin != "" {
		token += "." + a.opts.Pin
	}
	if role != RoleOwner {
		hash = limitedHash(hash)
	}
	now := a.now().UTC().Truncate(time.Microsecond) // as they are kept
	return APIToken{ID: newID(), OperatorID: operatorID, Role: role, Hash: hash, ExpiresAt: now.Add(ttl), CreatedAt: now}, token
}

// limitedHash is what is stored of a token that may not do everything: programs
// from before roles look for the hash itself, and would let it do that.
func limitedHash(hash []byte) []byte {
	sum := sha256.Sum256(append([]byte("HTTVPS limited token\x00"), hash...))
	return sum[:]
}

// NewAPIToken is what is asked for of a token.
type NewAPIToken struct {
	OperatorID string        // empty: the maker's own
	Role       Role          // empty: as much as its operator and its maker may
	TTL        time.Duration // 0: what the settings say
}

func (n *NewAPIToken) check(maker Bearer) error {
	if n.OperatorID == "" {
		n.OperatorID = maker.ID
	}
	var c checks
	c.that(n.TTL >= 24*time.Hour && n.TTL <= MaxAPITokenTTL, "ttl_days", "want 1 to 365")
	c.that(n.Role == "" || maker.Token.Role.Covers(n.Role), "role", "want a role that may nothing that the maker's token may not")
	return c.err()
}

// CreateAPIToken makes a token, which is nowhere else to be had. It may do nothing
// that its maker may not with the token he came with, nor its operator. When the
// same request had been made before, the text is empty and the third result true.
func (a *Authority) CreateAPIToken(ctx context.Context, maker Bearer, n NewAPIToken, once Once) (APIToken, string, bool, error) {
	var err error
	if n.TTL, err = a.tokenTTL(ctx, n.TTL); err != nil {
		return APIToken{}, "", false, err
	}
	if err := n.check(maker); err != nil {
		return APIToken{}, "", false, err
	}
	row, token := a.mintToken(n.OperatorID, RoleOwner, n.TTL)
	owners := row.Hash
	insert := func(ctx context.Context, tx Tx) error {
		operator, err := tx.Operator(ctx, n.OperatorID) // held: its role stays
		if err != nil {
			return err
		}
		if operator.DisabledAt != nil {
			return &ConflictError{Detail: "this operator is disabled"}
		}
		row := row
		switch {
		case n.Role != "":
			row.Role = n.Role
		case maker.Token.Role.Covers(operator.Role):
			row.Role = operator.Role
		default:
			row.Role = maker.Token.Role
		}
		var c checks
		c.that(operator.Role.Covers(row.Role), "role", "want a role that may nothing that the operator may not")
		if err := c.err(); err != nil {
			return err
		}
		if row.Hash = owners; row.Role != RoleOwner {
			row.Hash = limitedHash(owners)
		}
		return tx.InsertAPIToken(ctx, row)
	}
	made, replayed, err := create(ctx, a, once, row.ID, insert, Tx.APIToken)
	if err != nil || replayed {
		return made, "", replayed, err
	}
	return made, token, false, nil
}

// APITokens lists tokens, also those that have expired and are still kept: of an
// operator or, when that is empty, all. Who has no RightAudit sees his own.
func (a *Authority) APITokens(ctx context.Context, who Bearer, operatorID string, page Page) ([]APIToken, error) {
	if !who.Token.Role.Has(RightAudit) {
		if operatorID != "" && operatorID != who.ID {
			return nil, nil
		}
		operatorID = who.ID
	}
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]APIToken, error) { return tx.APITokens(ctx, operatorID, page) })
}

// DeleteAPIToken ends a token at once; it may be the one that the request came with.
// Without RightOperators it is that, or another one of the same operator that may no
// more than that; of others there is nothing to be known.
func (a *Authority) DeleteAPIToken(ctx context.Context, who Bearer, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		row, err := tx.APIToken(ctx, id)
		if err != nil {
			return err
		}
		own := row.OperatorID == who.ID && who.Token.Role.Covers(row.Role)
		if !own && row.ID != who.Token.ID && !who.Token.Role.Has(RightOperators) {
			return ErrNotFound
		}
		return tx.DeleteAPIToken(ctx, id)
	})
}

// endTokens deletes those tokens of an operator that a role does not cover: all of
// them when it is none.
func endTokens(ctx context.Context, tx Tx, operatorID string, role Role) error {
	page := Page{Limit: MaxPageSize}
	for {
		tokens, err := tx.APITokens(ctx, operatorID, page)
		if err != nil {
			return err
		}
		for _, token := range tokens {
			if role.Covers(token.Role) {
				continue
			}
			if err := tx.DeleteAPIToken(ctx, token.ID); err != nil {
				return err
			}
		}
		if len(tokens) < page.Limit {
			return nil
		}
		page.After = tokens[len(tokens)-1].ID
	}
}

// AuthenticateOperator returns whose token this is, of the API or of a login, and what
// it may do, or ErrUnauthorized.
func (a *Authority) AuthenticateOperator(ctx context.Context, token string) (Bearer, error) {
	hash, ok := hashAPIToken(token)
	if !ok {
		return Bearer{}, ErrUnauthorized
	}
	var who Bearer
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		who, err = tx.OperatorByToken(ctx, hash, a.now())
		if errors.Is(err, ErrNotFound) {
			who, err = tx.OperatorByToken(ctx, limitedHash(hash), a.now())
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return a.byLogin(ctx, hash, false)
	}
	return who, err
}
