package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/totp"
)

// Passwords makes hashes of passwords and checks passwords against them, so many at
// a time that the service bears it.
type Passwords interface {
	Hash(ctx context.Context, password string) (string, error)
	Check(ctx context.Context, hash, password string) (bool, error)
}

// Bounds of signing in.
const (
	// guessBurst passwords are evaluated of those who know nothing but an operator's
	// name and a code, and one more with each guessEvery; of each known client as many.
	guessBurst = 10
	guessEvery = 6 * time.Minute

	minPassword    = 12   // characters
	maxPassword    = 1024 // bytes
	minVariety     = 5    // different characters
	shortName      = 4    // characters; shorter ones are in many passwords by chance
	recoveryCodes  = 10
	recoveryLen    = 16 // characters of 80 bits in base32
	recoveryGroups = 4
	// maxFailing is of how many operators failures are counted until they are written.
	maxFailing = 1000
)

// SignIn is what an operator signs in with: a password and a second factor.
type SignIn struct {
	OperatorID string
	Password   string // its hash
	SealedTOTP []byte // the secret of his app
	LastStep   int64  // of the app's codes, the one that was used last
	// GuessesBack is when all guesses will have come back that were used up.
	GuessesBack time.Time
	// Failures are attempts since the last that went well.
	Failures  int
	ChangedAt time.Time
}

func (s SignIn) totpPlace() string { return sealedPlace("sign_ins", s.OperatorID, "sealed_totp") }

// Account is an operator who can sign in.
type Account struct {
	Operator
	SignIn SignIn
}

// KnownClient is a program that an operator has signed in with before. It is told
// from strangers by a secret, so that strangers' guesses do not keep it out.
type KnownClient struct {
	Hash        []byte
	OperatorID  string
	GuessesBack time.Time // as of a SignIn
	SeenAt      time.Time
	CreatedAt   time.Time
}

type signInRows interface {
	SignIn(ctx context.Context, operatorID string) (SignIn, error)
	// AccountByName and AccountOf return an operator who is not disabled and has a
	// sign-in, and hold nothing.
	AccountByName(ctx context.Context, name string) (Account, error)
	AccountOf(ctx context.Context, operatorID string) (Account, error)
	// PutSignIn takes the place of what the operator had.
	PutSignIn(ctx context.Context, s SignIn) error
	// NoteSignIn keeps LastStep, GuessesBack and Failures.
	NoteSignIn(ctx context.Context, s SignIn) error
	// AddFailures adds to Failures.
	AddFailures(ctx context.Context, operatorID string, n int) error
	// DeleteSignIns deletes all of them, with what belongs to them and all
	// invitations to make others, and returns how many there were.
	DeleteSignIns(ctx context.Context) (int, error)

	// PutRecoveryCodes takes the place of all that an operator has.
	PutRecoveryCodes(ctx context.Context, operatorID string, hashes [][]byte) error
	HasRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error)
	CountRecoveryCodes(ctx context.Context, operatorID string) (int, error)
	// TakeRecoveryCode reports whether the operator had it: of several takers one
	// succeeds.
	TakeRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error)

	KnownClient(ctx context.Context, operatorID string, hash []byte) (KnownClient, error)
	// PutKnownClient adds one, or changes its GuessesBack and SeenAt.
	PutKnownClient(ctx context.Context, k KnownClient) error
	// DropKnownClients deletes all of an operator's but those that were seen last.
	DropKnownClients(ctx context.Context, operatorID string, keep int) error

	// PutOperatorInvitation takes the place of the one before.
	PutOperatorInvitation(ctx context.Context, i OperatorInvitation) error
	OperatorInvitation(ctx context.Context, codeHash []byte) (OperatorInvitation, error)
	// TakeOperatorInvitation reports whether it was there.
	TakeOperatorInvitation(ctx context.Context, codeHash []byte) (bool, error)
}

// ErrBadLogin says that an operator is not who he says, and never why: the name, the
// password or the code may be wrong, or the code used.
var ErrBadLogin = errors.New("the name, the password or the code is not right")

// ErrLimitedToken says that a token may less than its operator, and so may not decide
// how he signs in.
var ErrLimitedToken = errors.New("this token may less than its operator")

// Secrets with which somebody proves that he is an operator.
type Secrets struct {
	Password string
	Code     string // of the app, or a recovery code
	Client   string // that an earlier login gave; empty: a stranger
}

// NewTOTP is a secret that an operator's app has, and its code of now.
type NewTOTP struct {
	Secret string
	Code   string
}

// guess takes one of the guesses whose return is at back, or says how long it takes
// until there is one.
func guess(back *time.Time, now time.Time) error {
	from := *back
	if from.Before(now) {
		from = now
	}
	if wait := from.Sub(now) - (guessBurst-1)*guessEvery; wait > 0 {
		return &RateLimitedError{RetryAfter: wait}
	}
	*back = from.Add(guessEvery)
	return nil
}

// hashRecovery returns what is stored of a recovery code, and whether this can be one.
func hashRecovery(typed string) ([]byte, bool) {
	if len(typed) > 2*recoveryLen {
		return hashCode(""), false
	}
	code := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(typed))
	_, err := codeText.DecodeString(code)
	return hashCode(code), err == nil && len(code) == recoveryLen
}

// newRecoveryCodes returns codes as people write them down, and what is stored of them.
func newRecoveryCodes() (codes []string, hashes [][]byte) {
	for range recoveryCodes {
		var raw [recoveryLen * 5 / 8]byte
		_, _ = rand.Read(raw[:]) // never fails
		code := codeText.EncodeToString(raw[:])
		hashes = append(hashes, hashCode(code))
		var groups []string
		for part := range slices.Chunk([]byte(code), recoveryLen/recoveryGroups) {
			groups = append(groups, string(part))
		}
		codes = append(codes, strings.Join(groups, "-"))
	}
	return codes, hashes
}

// hashClient returns what is stored of a known client's secret.
func hashClient(secret string) ([]byte, bool) {
	if len(secret) != tokenSecret {
		return nil, false
	}
	return hashCode("client " + secret), true
}

func newClient() (secret string, hash []byte) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	secret = rawURL.EncodeToString(raw[:])
	hash, _ = hashClient(secret)
	return secret, hash
}

// openDecoy makes the account that stands in for operators that there are not, and for those who have no
// password, so that looking at a code takes the same work. Its codes are good for
// nothing.
func (a *Authority) openDecoy() error {
	a.decoy = Account{Operator: Operator{ID: newID()}}
	a.decoy.SignIn.OperatorID = a.decoy.ID
	var err error
	a.decoy.SignIn.SealedTOTP, err = a.opts.Sealer.Seal(a.opts.Sealer.Newest(), totp.NewSecret(), a.decoy.SignIn.totpPlace())
	return err
}

// KnowsClient reports whether an operator has signed in with this client before.
func (a *Authority) KnowsClient(ctx context.Context, name, client string) (bool, error) {
	hash, ok := hashClient(client)
	if !ok {
		return false, nil
	}
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		account, err := tx.AccountByName(ctx, name)
		if errors.Is(err, ErrNotFound) {
			account, err = a.decoy, nil // the same work
		}
		if err == nil {
			_, err = tx.KnownClient(ctx, account.ID, hash)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// attempt is one to prove that somebody is an operator.
type attempt struct {
	account  Account
	known    []byte // the hash of his known client; nil: a stranger
	step     int64  // that the code is of, else it is a recovery code
	recovery []byte
}

// prove finds out whether somebody is the operator that find returns, and then does
// what is to be done in the unit of work that uses up the code.
//
// The code comes first, which takes no work and says nothing to others: who has none
// keeps nobody from signing in. Only then, and only so often, the password is looked
// at, of strangers and of each known client by themselves.
func (a *Authority) prove(
	ctx context.Context, find func(context.Context, Tx) (Account, error), secrets Secrets, then func(context.Context, Tx, attempt) error,
) error {
	try, err := a.look(ctx, find, secrets)
	if err != nil {
		return err
	}
	if err := a.takeGuess(ctx, try); err != nil {
		return err
	}
	same, err := a.opts.Passwords.Check(ctx, try.account.SignIn.Password, secrets.Password)
	if err != nil {
		return err
	}
	if !same {
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			return a.addFailures(ctx, tx, try.account.ID, 1, ActorOf(ctx).Address)
		})
		if err != nil {
			return err
		}
		return ErrBadLogin
	}
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now, err := tx.SignIn(ctx, try.account.ID)
		if errors.Is(err, ErrNotFound) {
			return ErrBadLogin
		}
		if err != nil {
			return err
		}
		if !now.ChangedAt.Equal(try.account.SignIn.ChangedAt) { // meanwhile
			return ErrBadLogin
		}
		ctx = acting(ctx, ActorOperator, try.account.ID, try.account.Name)
		if err := try.use(ctx, tx, &now); err != nil {
			return err
		}
		now.Failures = 0
		if try.known == nil {
			now.GuessesBack = now.GuessesBack.Add(-guessEvery)
		}
		if err := tx.NoteSignIn(ctx, now); err != nil {
			return err
		}
		return then(ctx, tx, try)
	})
}

// look finds the account and looks at the code.
func (a *Authority) look(ctx context.Context, find func(context.Context, Tx) (Account, error), secrets Secrets) (attempt, error) {
	var try attempt
	var there, recovers bool
	recovery, shaped := hashRecovery(secrets.Code)
	client, presented := hashClient(secrets.Client)
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		try = attempt{recovery: recovery}
		var err error
		try.account, err = find(ctx, tx)
		if there = err == nil; errors.Is(err, ErrNotFound) {
			try.account, err = a.decoy, nil
		}
		if err == nil {
			recovers, err = tx.HasRecoveryCode(ctx, try.account.ID, recovery)
		}
		if err != nil || !presented {
			return err
		}
		_, err = tx.KnownClient(ctx, try.account.ID, client)
		switch {
		case err == nil:
			try.known = client
		case errors.Is(err, ErrNotFound):
			err = nil
		}
		return err
	})
	if err != nil {
		return attempt{}, err
	}
	secret, err := a.opts.Sealer.Open(try.account.SignIn.SealedTOTP, try.account.SignIn.totpPlace())
	if err != nil {
		return attempt{}, fmt.Errorf("open the second factor of operator %s: %w", try.account.ID, err)
	}
	step, err := totp.Match(secret, secrets.Code, a.now())
	fresh := err == nil && step > try.account.SignIn.LastStep
	if fresh {
		try.step, try.recovery = step, nil
	}
	if !fresh && (!recovers || !shaped) || !there {
		if there {
			a.failing.add(try.account.ID)
		}
		return attempt{}, ErrBadLogin
	}
	return try, nil
}

// takeGuess uses up one guess of a password.
func (a *Authority) takeGuess(ctx context.Context, try attempt) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now, err := tx.SignIn(ctx, try.account.ID)
		if err != nil {
			return badUnless(err)
		}
		if try.known != nil {
			client, err := tx.KnownClient(ctx, try.account.ID, try.known)
			if err != nil {
				return badUnless(err)
			}
			if err := guess(&client.GuessesBack, a.now()); err != nil {
				return err
			}
			return tx.PutKnownClient(ctx, client)
		}
		if err := guess(&now.GuessesBack, a.now()); err != nil {
			return err
		}
		return tx.NoteSignIn(ctx, now)
	})
}

func badUnless(err error) error {
	if errors.Is(err, ErrNotFound) {
		return ErrBadLogin
	}
	return err
}

// use uses up the code, unless somebody else has.
func (t attempt) use(ctx context.Context, tx Tx, now *SignIn) error {
	if t.recovery == nil {
		if t.step <= now.LastStep {
			return ErrBadLogin
		}
		now.LastStep = t.step
		return nil
	}
	taken, err := tx.TakeRecoveryCode(ctx, t.account.ID, t.recovery)
	if err == nil && !taken {
		return ErrBadLogin
	}
	return err
}
