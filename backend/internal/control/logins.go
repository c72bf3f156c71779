package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// Bounds of logins.
const (
	// LoginIdle is how long a login lasts that is not used, and LoginTTL how long in
	// all.
	LoginIdle = 2 * time.Hour
	LoginTTL  = 12 * time.Hour

	maxLogins       = 20 // of an operator; more end those that were not used for longest
	maxKnownClients = 20 // of an operator, likewise
	// seenEvery is how exactly the last use of a login is known.
	seenEvery = time.Minute
)

// Login is a time in which an operator is signed in. What it may do is what he may.
type Login struct {
	ID         string
	OperatorID string
	Hash       []byte
	// Cookie says that its secret is in a browser's cookie, and counts only there.
	Cookie    bool
	Address   string // that it was made from
	CreatedAt time.Time
	SeenAt    time.Time
	EndsAt    time.Time // unless it is used
	ExpiresAt time.Time // whether it is used or not
}

// seen notes that the login is used.
func (l *Login) seen(now time.Time) {
	l.SeenAt, l.EndsAt = now, now.Add(LoginIdle)
	if l.ExpiresAt.Before(l.EndsAt) {
		l.EndsAt = l.ExpiresAt
	}
}

type loginRows interface {
	InsertLogin(ctx context.Context, l Login) error
	Login(ctx context.Context, id string) (Login, error)
	// Logins returns those of an operator, or without one all, that have not ended at
	// now.
	Logins(ctx context.Context, operatorID string, now time.Time, page Page) ([]Login, error)
	// OperatorByLogin returns whose login has this hash, unless it has ended at now or
	// the operator is disabled.
	OperatorByLogin(ctx context.Context, hash []byte, cookie bool, now time.Time) (Bearer, error)
	// TouchLogin keeps SeenAt and EndsAt.
	TouchLogin(ctx context.Context, l Login) error
	DeleteLogin(ctx context.Context, id string) error
	// DeleteLogins deletes all of them and returns how many there were.
	DeleteLogins(ctx context.Context) (int, error)
}

// LoginRequest is what somebody says who wants to sign in.
type LoginRequest struct {
	Name    string
	Secrets Secrets
	Cookie  bool // the secret goes into a browser's cookie
}

// LoggedIn is a new login. Its token and the secret of its client are nowhere else to
// be had.
type LoggedIn struct {
	Operator      Operator
	Login         Login
	Token         string // with the pin, if there is one
	Client        string // empty: the one that came is known still
	RecoveryCodes int    // that are left
}

// LogIn signs an operator in, or returns ErrBadLogin, or a *RateLimitedError when too
// many passwords were tried with good codes.
func (a *Authority) LogIn(ctx context.Context, r LoginRequest) (LoggedIn, error) {
	var out LoggedIn
	find := func(ctx context.Context, tx Tx) (Account, error) { return tx.AccountByName(ctx, r.Name) }
	err := a.prove(ctx, find, r.Secrets, func(ctx context.Context, tx Tx, try attempt) error {
		var err error
		if out, err = a.logIn(ctx, tx, try.account.Operator, try.known, r.Cookie); err != nil {
			return err
		}
		out.RecoveryCodes, err = tx.CountRecoveryCodes(ctx, try.account.ID)
		return err
	})
	return out, err
}

// logIn makes a login of an operator who has proved that he is one. known is the hash
// of his client's secret, if it is known.
func (a *Authority) logIn(ctx context.Context, tx Tx, operator Operator, known []byte, cookie bool) (LoggedIn, error) {
	now := a.now().UTC().Truncate(time.Microsecond) // as it is kept
	token, hash := newAPIToken()
	if a.opts.Pin != "" && !cookie {
		token += "." + a.opts.Pin
	}
	login := Login{
		ID: newID(), OperatorID: operator.ID, Hash: hash, Cookie: cookie, Address: ActorOf(ctx).Address, CreatedAt: now, ExpiresAt: now.Add(LoginTTL),
	}
	login.seen(now)
	out := LoggedIn{Operator: operator, Login: login, Token: token, RecoveryCodes: recoveryCodes}
	client := KnownClient{Hash: known, OperatorID: operator.ID, GuessesBack: now, SeenAt: now, CreatedAt: now}
	if known == nil {
		out.Client, client.Hash = newClient()
	}
	if err := tx.PutKnownClient(ctx, client); err != nil {
		return LoggedIn{}, err
	}
	if err := tx.DropKnownClients(ctx, operator.ID, maxKnownClients); err != nil {
		return LoggedIn{}, err
	}
	if err := dropLogins(ctx, tx, operator.ID, now); err != nil {
		return LoggedIn{}, err
	}
	actor := ActorOf(ctx)
	actor.TokenID = login.ID
	return out, tx.InsertLogin(WithActor(ctx, actor), login)
}

// dropLogins makes room for a further login.
func dropLogins(ctx context.Context, tx Tx, operatorID string, now time.Time) error {
	logins, err := tx.Logins(ctx, operatorID, now, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	for len(logins) >= maxLogins {
		oldest := 0
		for i, l := range logins {
			if l.SeenAt.Before(logins[oldest].SeenAt) {
				oldest = i
			}
		}
		if err := tx.DeleteLogin(ctx, logins[oldest].ID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		logins = append(logins[:oldest], logins[oldest+1:]...)
	}
	return nil
}

// endLogins ends an operator's logins but for one.
func endLogins(ctx context.Context, tx Tx, operatorID, keep string) error {
	logins, err := tx.Logins(ctx, operatorID, time.Time{}, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	for _, l := range logins {
		if l.ID == keep {
			continue
		}
		if err := tx.DeleteLogin(ctx, l.ID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// Logins lists logins that have not ended: of an operator or, when that is empty, all.
// Who has no RightAudit sees his own.
func (a *Authority) Logins(ctx context.Context, who Bearer, operatorID string, page Page) ([]Login, error) {
	if !who.Token.Role.Has(RightAudit) {
		if operatorID != "" && operatorID != who.ID {
			return nil, nil
		}
		operatorID = who.ID
	}
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Login, error) { return tx.Logins(ctx, operatorID, a.now(), page) })
}

// EndLogin ends a login at once; it may be the one that the request came with. Without
// RightManage it is one of the same operator; with it, of one who may no more than the
// caller. Of others there is nothing to be known.
func (a *Authority) EndLogin(ctx context.Context, who Bearer, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		login, err := tx.Login(ctx, id)
		if err != nil {
			return err
		}
		operator, err := tx.Operator(ctx, login.OperatorID)
		if err != nil {
			return err
		}
		if !who.Token.Role.Covers(operator.Role) || login.OperatorID != who.ID && !who.Token.Role.Has(RightManage) {
			return ErrNotFound
		}
		return tx.DeleteLogin(ctx, id)
	})
}

// AuthenticateCookie returns whose login a browser's cookie is of, or ErrUnauthorized.
func (a *Authority) AuthenticateCookie(ctx context.Context, token string) (Bearer, error) {
	hash, ok := hashAPIToken(token)
	if !ok {
		return Bearer{}, ErrUnauthorized
	}
	return a.byLogin(ctx, hash, true)
}

// CSRFToken is what a request says that comes with a cookie and changes something: who
// has been shown it has read an answer of this service, which other sites cannot.
func CSRFToken(cookie string) string {
	sum := sha256.Sum256([]byte("HTTVPS1 CSRF\x00" + cookie))
	return rawURL.EncodeToString(sum[:])
}

// byLogin returns whose login this is, which is used now.
func (a *Authority) byLogin(ctx context.Context, hash []byte, cookie bool) (Bearer, error) {
	var who Bearer
	now := a.now().UTC()
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		who, err = tx.OperatorByLogin(ctx, hash, cookie, now)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Bearer{}, ErrUnauthorized
	}
	if err != nil || now.Sub(who.Login.SeenAt) < seenEvery {
		return who, err
	}
	who.Login.seen(now)
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return tx.TouchLogin(ctx, *who.Login) })
	switch {
	case errors.Is(err, ErrNotFound): // ended meanwhile
		return Bearer{}, ErrUnauthorized
	case errors.Is(err, ErrUnavailable): // it can be read all the same; the login ends earlier
		err = nil
	}
	return who, err
}

// failing counts attempts to sign in as somebody that came with no good code. There
// may be very many, so they are written together, from time to time.
type failing struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int
}

// add counts one of an operator. There are few of those; of more than maxFailing at
// once none is counted.
func (f *failing) add(operatorID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = make(map[string]int)
	}
	if _, counted := f.counts[operatorID]; counted || len(f.counts) < maxFailing {
		f.counts[operatorID]++
	}
}

func (f *failing) take() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := f.counts
	f.counts = nil
	return counts
}

// writeFailing writes down the attempts to sign in that had no good code.
func (a *Authority) writeFailing(ctx context.Context) error {
	for id, n := range a.failing.take() {
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return a.addFailures(ctx, tx, id, n, "") })
		if err != nil && !errors.Is(err, ErrNotFound) { // gone meanwhile
			return err
		}
	}
	return nil
}

// addFailures notes attempts to sign in as an operator that failed; address is empty when
// they may have come from several.
func (a *Authority) addFailures(ctx context.Context, tx Tx, operatorID string, n int, address string) error {
	if err := tx.AddFailures(ctx, operatorID, n); err != nil {
		return err
	}
	account, err := tx.AccountOf(ctx, operatorID)
	if errors.Is(err, ErrNotFound) { // disabled: there is nothing to guess
		return nil
	}
	if err != nil {
		return err
	}
	a.announce(tx, notice{Type: NoticeLoginFailed, Object: account.ID, Data: noticeData{
		Operator: &noticeOperator{ID: account.ID, Name: account.Name, Attempts: n, Address: address},
	}})
	return nil
}
