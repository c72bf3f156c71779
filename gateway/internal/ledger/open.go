package ledger

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockTimeout is how long another process may take to let go of the file.
	lockTimeout = 5 * time.Second
	// format is of the file; a later one is not touched.
	format = 1
)

var (
	bucketRows = []byte("rows")
	bucketMeta = []byte("meta")
	keyFormat  = []byte("format")

	errDamaged = errors.New("the ledger of usage is damaged")
)

// Open opens the file at path, or makes it, for limit rows. A file that is damaged
// is put aside, under the name that aside says.
func Open(path string, limit int) (l *Ledger, aside string, err error) {
	l, err = open(path, limit)
	if !errors.Is(err, errDamaged) {
		return l, "", err
	}
	aside = path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if renameErr := os.Rename(path, aside); renameErr != nil {
		return nil, "", errors.Join(err, renameErr)
	}
	l, err = open(path, limit)
	return l, aside, err
}

func open(path string, limit int) (l *Ledger, err error) {
	// The file is read as memory: one that was cut off faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			l, err = nil, fmt.Errorf("%w: %s: %v", errDamaged, path, fault)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: another process has it", path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, path, err)
	case err != nil:
		return nil, fmt.Errorf("open the ledger of usage: %w", err)
	}
	l = &Ledger{db: db, limit: limit, unsaved: make(map[Place]Row)}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return l, nil
}

// load makes what a new file lacks, and reads all of an old one: what is damaged is
// to be found now.
func (l *Ledger) load() error {
	var made bool
	err := l.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		made = meta == nil
		if !made && string(meta.Get(keyFormat)) != string([]byte{format}) {
			return errors.New("the ledger of usage is another version's: start that, or move the file away")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if made {
		if err := l.db.Update(makeBuckets); err != nil {
			return fmt.Errorf("make the ledger of usage: %w", err)
		}
	}
	err = l.each(func(r Row) {
		l.rows++
		l.oldest = earlier(l.oldest, r.Since)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

func makeBuckets(tx *bolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(bucketRows); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	return meta.Put(keyFormat, []byte{format})
}
