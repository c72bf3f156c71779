package control

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// AuditEntry says who changed what. Entries are numbered from 1 without a gap.
type AuditEntry struct {
	Number   int64
	At       time.Time
	Action   string // KIND.VERB
	ObjectID string
	Actor    Actor
	Before   string // JSON without secrets; empty: there was nothing
	After    string // likewise: there is nothing any more
	Hash     []byte // over the hash before and everything above
	// Signature is of the hash: who can write to the database alone cannot make it.
	Signature []byte
}

// AuditHead is the newest entry. Its signature says that it is: entries that are cut
// off are missed.
type AuditHead struct {
	Number    int64 // 0: there is no entry yet
	Hash      []byte
	Signature []byte
}

// AuditFilter selects entries; empty fields select all.
type AuditFilter struct {
	ObjectID string
	ActorID  string
	Action   string
	Oldest   bool  // oldest first, else newest first
	After    int64 // what comes behind this one; 0: from the beginning
	Limit    int
}

type auditRows interface {
	// AuditHead returns the newest entry.
	AuditHead(ctx context.Context) (AuditHead, error)
	// LockAudit is AuditHead, for its effect: until the unit of work ends nobody else
	// adds an entry.
	LockAudit(ctx context.Context) (AuditHead, error)
	PutAuditHead(ctx context.Context, h AuditHead) error
	InsertAudit(ctx context.Context, e AuditEntry) error
	AuditEntry(ctx context.Context, number int64) (AuditEntry, error)
	AuditEntries(ctx context.Context, f AuditFilter) ([]AuditEntry, error)
}

// hash is what the entry's hash must be behind an entry with the hash previous: SHA-256
// over that and every field with its length before it.
func (e AuditEntry) hash(previous []byte) []byte {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	number := func(n int64) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	field(previous)
	number(e.Number)
	number(e.At.UnixMicro())
	for _, text := range []string{
		e.Action, e.ObjectID, string(e.Actor.Kind), e.Actor.ID, e.Actor.Name, e.Actor.TokenID, e.Actor.Address, e.Actor.Reason, e.Before, e.After,
	} {
		field([]byte(text))
	}
	return h.Sum(nil)
}

func (e AuditEntry) signed() []byte { return append([]byte("HTTVPS1 audit entry\x00"), e.Hash...) }

func (h AuditHead) signed() []byte {
	return append(binary.BigEndian.AppendUint64([]byte("HTTVPS1 audit head\x00"), uint64(h.Number)), h.Hash...)
}

// kindAudit is the secret that signs the audit log. It is not replaced: what it
// signed could not be verified any more.
const kindAudit = "audit_key"

// auditing is a Store whose units of work write what they change to the audit log, and
// what webhooks are told of it.
type auditing struct {
	Store
	sealer Sealer
	now    func() time.Time
	posted func() // called when there is something to be sent; may be nil
}

// Write implements Store.
func (s *auditing) Write(ctx context.Context, fn func(context.Context, Tx) error) error {
	posted := false
	err := s.Store.Write(ctx, func(ctx context.Context, tx Tx) error {
		unit := &audited{Tx: tx, now: s.now}
		if err := fn(ctx, unit); err != nil {
			return err
		}
		if err := unit.post(ctx); err != nil {
			return err
		}
		posted = unit.posted
		return s.chain(ctx, unit)
	})
	if err == nil && posted && s.posted != nil {
		s.posted()
	}
	return err
}

// chain writes the entries of a unit of work. Who adds to the log makes all others
// that do wait, so it is the last thing but the events that a unit of work does.
func (s *auditing) chain(ctx context.Context, unit *audited) error {
	if len(unit.entries) == 0 {
		return nil
	}
	head, err := unit.LockAudit(ctx)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	key, err := s.key(ctx, unit.Tx)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	for _, e := range unit.entries {
		head.Number++
		e.Number = head.Number
		e.Hash = e.hash(head.Hash)
		e.Signature = ed25519.Sign(key, e.signed())
		head.Hash = e.Hash
		if err := unit.InsertAudit(ctx, e); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	head.Signature = ed25519.Sign(key, head.signed())
	if err := unit.PutAuditHead(ctx, head); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// key returns the key that signs the log, after making it if there is none. Who asks
// holds the log, so that it is made once.
func (s *auditing) key(ctx context.Context, tx Tx) (ed25519.PrivateKey, error) {
	sealed, err := tx.Secrets(ctx, kindAudit)
	if err != nil {
		return nil, err
	}
	if len(sealed) > 0 {
		return openAuditKey(s.sealer, sealed)
	}
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	made := SealedSecret{ID: newID(), Kind: kindAudit, CreatedAt: s.now()}
	sealing, err := tx.Setting(ctx, settingSealingKey)
	if err != nil {
		return nil, err
	}
	if made.Sealed, err = s.sealer.Seal(sealing, seed, made.place()); err != nil {
		return nil, fmt.Errorf("seal %s: %w", kindAudit, err)
	}
	return ed25519.NewKeyFromSeed(seed), tx.InsertSecret(ctx, made)
}

func openAuditKey(sealer Sealer, sealed []SealedSecret) (ed25519.PrivateKey, error) {
	first := sealed[len(sealed)-1]
	seed, err := sealer.Open(first.Sealed, first.place())
	if err == nil && len(seed) != ed25519.SeedSize {
		err = errors.New("wrong length")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kindAudit, err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// checkAuditKey finds out at the start that the key does not open, if there is one yet.
func (a *Authority) checkAuditKey(ctx context.Context, tx Tx) error {
	sealed, err := tx.Secrets(ctx, kindAudit)
	if err == nil && len(sealed) > 0 {
		_, err = openAuditKey(a.opts.Sealer, sealed)
	}
	return err
}

// AuditEntries lists entries of the audit log.
func (a *Authority) AuditEntries(ctx context.Context, f AuditFilter) ([]AuditEntry, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]AuditEntry, error) { return tx.AuditEntries(ctx, f) })
}

// AuditEntry returns an entry.
func (a *Authority) AuditEntry(ctx context.Context, number int64) (AuditEntry, error) {
	var e AuditEntry
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		e, err = tx.AuditEntry(ctx, number)
		return err
	})
	return e, err
}

// AuditVerdict is what a look at the whole audit log led to.
type AuditVerdict struct {
	Head AuditHead
	Key  ed25519.PublicKey // whose signatures they should be; nil: there never was an entry
	// Broken is the first entry that is not as it was written, or that is missing; 0:
	// all are. Problem says what is wrong with it.
	Broken  int64
	Problem string
}

const auditBatch = 500

// VerifyAudit looks at every entry as of one moment. known, unless it is zero, is a
// head that somebody wrote down earlier: a log that was replaced as a whole by an
// older copy of itself does not have it.
func (a *Authority) VerifyAudit(ctx context.Context, known AuditHead) (AuditVerdict, error) {
	var v AuditVerdict
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		v = AuditVerdict{}
		head, err := tx.AuditHead(ctx)
		if err != nil {
			return err
		}
		v.Head = head
		sealed, err := tx.Secrets(ctx, kindAudit)
		if err != nil {
			return err
		}
		if len(sealed) > 0 {
			key, err := openAuditKey(a.opts.Sealer, sealed)
			if err != nil {
				return err
			}
			v.Key, _ = key.Public().(ed25519.PublicKey)
		}
		return v.read(ctx, tx, known)
	})
	return v, err
}

func (v *AuditVerdict) broken(number int64, problem string) { v.Broken, v.Problem = number, problem }

func (v *AuditVerdict) read(ctx context.Context, tx Tx, known AuditHead) error {
	var last AuditHead
	for after := int64(math.MinInt64); ; after = last.Number {
		entries, err := tx.AuditEntries(ctx, AuditFilter{Oldest: true, After: after, Limit: auditBatch})
		if err != nil {
			return err
		}
		for _, e := range entries {
			switch {
			case e.Number <= last.Number:
				v.broken(e.Number, "it is none of the log's")
			case e.Number != last.Number+1:
				v.broken(last.Number+1, "it is missing")
			case !bytes.Equal(e.Hash, e.hash(last.Hash)):
				v.broken(e.Number, "it is not what was written, or what stands before it is not")
			case len(v.Key) == 0 || !ed25519.Verify(v.Key, e.signed(), e.Signature):
				v.broken(e.Number, "its signature is not this service's")
			case e.Number > v.Head.Number:
				v.broken(e.Number, "it stands behind the last one")
			case e.Number == known.Number && !bytes.Equal(e.Hash, known.Hash):
				v.broken(e.Number, "it is not the one that is known")
			}
			if v.Broken != 0 {
				return nil
			}
			last = AuditHead{Number: e.Number, Hash: e.Hash}
		}
		if len(entries) < auditBatch {
			break
		}
	}
	switch {
	case last.Number < max(v.Head.Number, known.Number):
		v.broken(last.Number+1, "it is missing")
	case last.Number == 0 && len(v.Key) == 0:
	case !bytes.Equal(v.Head.Hash, last.Hash), len(v.Key) == 0, !ed25519.Verify(v.Key, v.Head.signed(), v.Head.Signature):
		v.broken(last.Number+1, "the signature of the log's end is not for the entry before it: there may have been more")
	}
	return nil
}
