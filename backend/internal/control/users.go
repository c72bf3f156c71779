package control

import (
	"context"
	"time"
	"unicode"
	"unicode/utf8"
)

// User is a person or account. Its name is unique.
type User struct {
	ID         string
	Name       string
	Note       string
	DisabledAt *time.Time // nil: enabled
	Limits     Limits     // that hold whatever his plans say
	CreatedAt  time.Time
}

// UserFields are what an operator decides about a user; nil leaves it as it is.
type UserFields struct {
	Name     *string
	Note     *string
	Disabled *bool
	Limits   LimitsChange // only of a new user; see UpdateLimits
}

const (
	maxName = 100  // characters in a name
	maxNote = 1000 // characters in a note
)

func validName(s string) bool { return s != "" && validText(s, maxName) }

// validText says whether s is at most limit printable characters.
func validText(s string, limit int) bool {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > limit {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

const nameRule = "want 1 to 100 characters, none of them a control character"

func (u *User) apply(f UserFields, now time.Time) error {
	set(&u.Name, f.Name)
	set(&u.Note, f.Note)
	if f.Disabled != nil {
		switch {
		case !*f.Disabled:
			u.DisabledAt = nil
		case u.DisabledAt == nil:
			u.DisabledAt = &now
		}
	}
	var c checks
	c.that(validName(u.Name), "name", nameRule)
	c.that(validText(u.Note, maxNote), "note", "want at most 1000 characters, none of them a control character")
	return c.err()
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// CreateUser adds a user. The second result says that it was there already,
// made by the same request before.
func (a *Authority) CreateUser(ctx context.Context, f UserFields, once Once) (User, bool, error) {
	user := User{ID: newID(), CreatedAt: a.now()}
	if err := user.apply(f, a.now()); err != nil {
		return User{}, false, err
	}
	return create(ctx, a, once, user.ID, func(ctx context.Context, tx Tx) error {
		user := user // fn may run again
		if err := user.Limits.apply(ctx, tx, f.Limits); err != nil {
			return err
		}
		a.announceUser(tx, NoticeUserCreated, user)
		return tx.InsertUser(ctx, user)
	}, Tx.User)
}

// User returns a user.
func (a *Authority) User(ctx context.Context, id string) (User, error) {
	return get(ctx, a, id, Tx.User)
}

// Users lists users, all or those with a name.
func (a *Authority) Users(ctx context.Context, name string, page Page) ([]User, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]User, error) { return tx.Users(ctx, name, page) })
}

// SearchUsers lists users whose name begins with words, in the order of names.
func (a *Authority) SearchUsers(ctx context.Context, words string, page Page) ([]User, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]User, error) { return tx.SearchUsers(ctx, words, page) })
}

// UpdateUser changes a user. Disabling one ends its sessions: gateways are told.
func (a *Authority) UpdateUser(ctx context.Context, id string, f UserFields) (User, error) {
	var user User
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		user, err = a.updateUser(ctx, tx, id, f)
		return err
	})
	return user, err
}

func (a *Authority) updateUser(ctx context.Context, tx Tx, id string, f UserFields) (User, error) {
	user, err := tx.User(ctx, id)
	if err != nil {
		return User{}, err
	}
	wasDisabled := user.DisabledAt != nil
	if err := user.apply(f, a.now()); err != nil {
		return User{}, err
	}
	if err := tx.UpdateUser(ctx, user); err != nil {
		return User{}, err
	}
	return user, a.tellUser(ctx, tx, user, wasDisabled)
}

// DeleteUser removes a user with its devices, subscriptions and invitations;
// gateways are told to end its sessions.
func (a *Authority) DeleteUser(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return a.removeUser(ctx, tx, id) })
}
