package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/httvps/httvps/backend/internal/backup"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
)

// Restore puts a backup into the configured database, which must be empty and may be
// another engine's than it was made from, and seals its secrets with the configured
// keys. The whole file is looked at before anything is touched; then everything is
// there or nothing. keyFile holds the recovery key. It returns what there is to say.
func Restore(ctx context.Context, cfg Config, path, keyFile string) (said string, err error) {
	source, err := databaseOf(cfg)
	if err != nil {
		return "", err
	}
	file, err := openBackup(path, keyFile)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := store.CheckEmpty(ctx, source, file.header.Schema); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	keys, err := seal.Open(cfg.Keys())
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := file.restore(byCommand(ctx, "restore"), source, keys); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	return fmt.Sprintf(`%s
The service is as it was at %s. What happened since then has not: who was enrolled enrols again; and who was
disabled, which devices were revoked and which API tokens were ended meanwhile is to be said once more before it serves others.
`, file.summary(), file.header.MadeAt.Format(time.RFC3339)), nil
}

// VerifyBackup restores a backup into a database of its own that it makes in the
// system's directory for temporary files and removes again; looks whether all records
// came back, every total of the usage follows from its reports and the audit log is as it
// was written; and notes beside the file that all that is so. It returns what it found,
// whether that is good or not.
func VerifyBackup(ctx context.Context, path, keyFile string) (said string, err error) {
	said, err = verify(ctx, path, keyFile, "")
	if err != nil {
		return said, fmt.Errorf("verify: %w", err)
	}
	if err := backup.Verified(path, time.Now()); err != nil {
		return said, err
	}
	return said, nil
}

// backupFile is one that was read to its end and is whole.
type backupFile struct {
	path   string
	key    *age.X25519Identity
	header backup.Header
	counts map[string]int64
}

// openBackup reads a backup once, for nothing but what is wrong with it.
func openBackup(path, keyFile string) (*backupFile, error) {
	key, err := backup.ReadKeyFile(keyFile)
	if err != nil {
		return nil, err
	}
	f := &backupFile{path: path, key: key}
	err = f.read(func(r *backup.Reader) error {
		f.header = r.Header
		if err := (seal.Source{Text: strings.Join(r.Header.Keys, ","), Name: "the backup"}).Check(); err != nil {
			return fmt.Errorf("%w: it has no key-encryption keys", backup.ErrDamaged)
		}
		f.counts, err = r.Read(ignored{})
		return err
	})
	return f, err
}

// ignored are rows that nobody wants.
type ignored struct{}

func (ignored) Begin(string, []string) error { return nil }
func (ignored) Row([]any) error              { return nil }

func (f *backupFile) read(use func(*backup.Reader) error) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	reader, err := backup.Open(file, f.key)
	if err == nil {
		err = use(reader)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// restore puts the file's rows into a database and makes them a service whose secrets
// are sealed with keys.
func (f *backupFile) restore(ctx context.Context, into store.Config, keys *seal.Ring) error {
	old, err := seal.Open(seal.Source{Text: strings.Join(f.header.Keys, ","), Name: "the backup"})
	if err != nil {
		return err
	}
	return store.Restore(ctx, into, f.header.Schema,
		func(_ context.Context, rows store.Rows) error {
			return f.read(func(r *backup.Reader) error {
				counts, err := r.Read(rows)
				if err == nil && !maps.Equal(counts, f.counts) {
					err = errors.New("the file was changed meanwhile")
				}
				return err
			})
		},
		func(ctx context.Context, tx control.Tx) error {
			return control.FinishRestore(ctx, tx, resealer{keys, old}, control.Restoration{
				ServiceID: f.header.ServiceID, MadeAt: f.header.MadeAt, Schema: f.header.Schema,
			}, time.Now)
		})
}

// resealer seals with the keys of the machine and opens what those of the backup
// sealed, too.
type resealer struct {
	*seal.Ring
	old *seal.Ring
}

// Open implements control.Sealer.
func (r resealer) Open(sealed []byte, place string) ([]byte, error) {
	if plain, err := r.old.Open(sealed, place); err == nil {
		return plain, nil
	}
	return r.Ring.Open(sealed, place)
}

func (f *backupFile) summary() string {
	total := int64(0)
	for _, n := range f.counts {
		total += n
	}
	return fmt.Sprintf("%s: made %s, schema %d, %d records in %d tables", f.path, f.header.MadeAt.Format(time.RFC3339), f.header.Schema, total, len(f.counts))
}

// scratchName is what directories of backups that are being tried are called.
const scratchName = "backup-verify-*"

// errNotVerified says that a backup does not hold what it should.
var errNotVerified = errors.New("the backup is not good")

// verify restores a backup for a try, into a database below scratch (empty: where the
// system has temporary files).
func verify(ctx context.Context, path, keyFile, scratch string) (said string, err error) {
	file, err := openBackup(path, keyFile)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(scratch, scratchName) // for its owner alone
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	keys, err := seal.Open(seal.Source{Text: seal.NewKey(), Name: "a key for once"})
	if err != nil {
		return "", err
	}
	source := store.Config{Path: filepath.Join(dir, "verify.db"), Log: slog.New(slog.DiscardHandler)}
	if err := file.restore(byCommand(ctx, "verify"), source, keys); err != nil {
		return "", err
	}
	records, err := store.Open(ctx, source)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	v := &verification{file: file, records: records, keys: keys}
	v.say("%s", file.summary())
	for _, table := range slices.Sorted(maps.Keys(file.counts)) {
		v.say("  %-20s %d", table, file.counts[table])
	}
	return v.run(ctx)
}

// verification looks at records that were restored for a try.
type verification struct {
	file    *backupFile
	records *store.Store
	keys    *seal.Ring
	said    strings.Builder
	wrong   []error
}

func (v *verification) say(format string, args ...any) { fmt.Fprintf(&v.said, format+"\n", args...) }

func (v *verification) bad(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Errorf(format, args...))
}

func (v *verification) run(ctx context.Context) (string, error) {
	// A service that opens its keys would start.
	authority, err := control.Open(ctx, control.Options{
		Store: v.records, Sealer: v.keys, Now: time.Now, ServiceName: "verify", PublicURL: "https://verify.invalid",
		Heartbeat: time.Minute, KnockCookie: "verify", KnockRotation: 24 * time.Hour,
	})
	if err != nil {
		return v.said.String(), err
	}
	if id := authority.Identity().ServiceID; id != v.file.header.ServiceID {
		v.bad("the service is %s, the backup is of %s", id, v.file.header.ServiceID)
	}
	usage, err := authority.VerifyUsage(ctx)
	if err != nil {
		return v.said.String(), err
	}
	if n := len(usage.Differences); n > 0 {
		v.bad("%d totals of the usage are not what the reports lead to", n)
	} else {
		v.say("usage: %d reports, %d sessions, %d bytes up, %d down: every total is what the reports lead to",
			usage.Reports, usage.Sessions, usage.Total.Up, usage.Total.Down)
	}
	audit, err := authority.VerifyAudit(ctx, control.AuditHead{})
	if err != nil {
		return v.said.String(), err
	}
	if audit.Broken != 0 {
		v.bad("the audit log is broken at entry %d: %s", audit.Broken, audit.Problem)
	} else {
		v.say("audit: all %d entries are as they were written", v.file.counts["audit"])
	}
	if len(v.wrong) > 0 {
		return v.said.String(), fmt.Errorf("%w: %w", errNotVerified, errors.Join(v.wrong...))
	}
	return v.said.String(), nil
}
