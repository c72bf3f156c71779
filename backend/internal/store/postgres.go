package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

const (
	defaultMaxConnections = 10
	connectTimeout        = 5 * time.Second
	// idleTime is how long a connection that nobody needs stays open, and
	// connectionLife how long any does: a server that took over another's address
	// is found within it.
	idleTime       = 5 * time.Minute
	connectionLife = 30 * time.Minute
	// statementCache is how many statements a connection keeps prepared; there are
	// fewer than that.
	statementCache = 128

	// oldestPostgres is the lowest server version that the tests run on.
	oldestPostgres = 15

	postgresVersions = "httvps_schema" // the table of the schema's versions
)

// serverSettings are those of every connection, unless the URL has its own.
var serverSettings = map[string]string{
	"application_name": "httvps-backend",
	// A statement or a lock that takes longer serves nobody any more: requests
	// have given up by then.
	"statement_timeout": "15s",
	// A process that died or was cut off frees what it held.
	"idle_in_transaction_session_timeout": "30s",
	"tcp_keepalives_idle":                 "15",
	"tcp_keepalives_interval":             "5",
	"tcp_keepalives_count":                "3",
}

// postgresEngine keeps everything in a PostgreSQL database, which several
// processes may use.
type postgresEngine struct {
	config *pgx.ConnConfig
	limit  int
	dir    fs.FS
}

func newPostgres(c Config, steps fs.FS) (*postgresEngine, error) {
	config, err := pgx.ParseConfig(c.URL)
	if err != nil {
		// The driver's own words may repeat parts of the URL.
		return nil, &DatabaseError{Database: "at database.url", Err: errors.New(
			"the URL is not usable: want postgres://USER:PASSWORD@HOST[:PORT]/NAME?sslmode=…, special characters escaped, and files that it names to exist")}
	}
	for name, value := range serverSettings {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > connectTimeout {
		config.ConnectTimeout = connectTimeout
	}
	if config.ValidateConnect == nil { // no target_session_attrs: the server that takes writes
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.StatementCacheCapacity = statementCache
	e := &postgresEngine{config: config, limit: c.MaxConnections}
	if e.limit == 0 {
		e.limit = defaultMaxConnections
	}
	e.dir, err = fs.Sub(steps, "postgres")
	return e, err
}

// name is the server's address and the database, as a URL without credentials.
func (e *postgresEngine) name() string {
	host, port := e.config.Host, strconv.Itoa(int(e.config.Port))
	u := url.URL{Scheme: "postgres", Host: net.JoinHostPort(host, port), Path: "/" + e.config.Database}
	if strings.HasPrefix(host, "/") {
		u.Host, u.RawQuery = "", url.Values{"host": {host}, "port": {port}}.Encode()
	}
	return u.String()
}

// Units of work that write run side by side and see what others committed in
// the meantime. What they rest on they hold: rows by locks, what is no row yet by
// turns.
func (e *postgresEngine) dialect() dialect {
	return dialect{
		bytes: "BYTEA", fold: `lower(name COLLATE "C")`, hold: " FOR NO KEY UPDATE OF ", skip: " FOR UPDATE OF %s SKIP LOCKED",
		turn:     "SELECT pg_advisory_xact_lock($1)",
		takeTime: "SET LOCAL statement_timeout = 0",
		// Other tables have room of their own, which says nothing about the disk.
		takeRoom: []string{"CREATE TEMPORARY TABLE room ON COMMIT DROP AS SELECT md5(i::text) AS text FROM generate_series(1, 4096) AS i"},
	}
}

func (e *postgresEngine) steps() ([]Migration, error) { return readSteps(e.dir) }

func (e *postgresEngine) connect(ctx context.Context, _ access) (pools, error) {
	db := newPool(sql.OpenDB(stdlib.GetConnector(*e.config)), e.limit)
	db.SetMaxIdleConns(e.limit)
	db.SetConnMaxIdleTime(idleTime)
	db.SetConnMaxLifetime(connectionLife)
	if err := e.inspect(ctx, db.DB); err != nil {
		return pools{}, errors.Join(err, db.Close())
	}
	return pools{
		writer: db, reader: db, close: db.Close,
		renew: func() {
			db.SetMaxIdleConns(0)
			db.SetMaxIdleConns(e.limit)
		},
		// One moment for all statements; the default would show each another one.
		reading: &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	}, nil
}

// inspect looks whether the server and the database may be used at all.
func (e *postgresEngine) inspect(ctx context.Context, db *sql.DB) error {
	var (
		server   int
		encoding string
		schema   sql.Null[string]
		ours     bool
		tables   int
	)
	// One statement sees one moment: while another process makes the first tables,
	// none of them is there without that of the versions.
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),
		current_schema(), to_regclass('`+postgresVersions+`') IS NOT NULL, (
			SELECT COUNT(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
				AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'))`).
		Scan(&server, &encoding, &schema, &ours, &tables)
	switch {
	case err != nil:
		return err
	case server < oldestPostgres:
		return fmt.Errorf("%w: PostgreSQL %d is too old, want %d or newer", ErrUnsuitable, server, oldestPostgres)
	case encoding != "UTF8":
		return fmt.Errorf("%w: the database has encoding %s, want UTF8", ErrUnsuitable, encoding)
	case !schema.Valid:
		return fmt.Errorf("%w: there is no schema in the account's search_path", ErrUnsuitable)
	case !ours && tables > 0:
		return fmt.Errorf("%w: the schema %q has tables of another program; make a database of its own for this one", ErrForeign, schema.V)
	}
	return nil
}

func (e *postgresEngine) version(ctx context.Context, q queryer) (int64, error) {
	var ours bool
	const known = "SELECT to_regclass('" + postgresVersions + "') IS NOT NULL"
	if err := q.QueryRowContext(ctx, known).Scan(&ours); err != nil || !ours {
		return 0, err
	}
	return latest(ctx, q, postgresVersions)
}

// backUp leaves it to the operator, whose server has the means for it.
func (e *postgresEngine) backUp(context.Context, pools, int64) (string, error) { return "", nil }

// up uses a connection of its own: a step may take longer than any request, but
// must not wait for a table while all others wait behind it.
func (e *postgresEngine) up(ctx context.Context, _ pools, version int64) (steps []Migration, err error) {
	config := e.config.Copy()
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["lock_timeout"] = "10s"
	db := sql.OpenDB(stdlib.GetConnector(*config))
	defer func() { err = errors.Join(err, db.Close()) }()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // every second, for five minutes
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, e.dir,
		goose.WithTableName(postgresVersions), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, err
	}
	results, err := provider.UpTo(ctx, version)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" { // insufficient_privilege
		err = fmt.Errorf("%w: the account may not make tables; let it own the database or its schema (%w)", ErrUnsuitable, err)
	}
	return applied(results), err
}

func (e *postgresEngine) apply(ctx context.Context, unit statements, step Migration) error {
	return applyStep(ctx, unit, step, postgresVersions)
}

// presence returns a pool for the one connection that shows that a process serves.
// It comes on top of the others, or a small pool would have nothing left.
func (e *postgresEngine) presence() *sql.DB {
	db := sql.OpenDB(stdlib.GetConnector(*e.config))
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(0) // closed when it is given back, and the lock with it
	return db
}

func (e *postgresEngine) judge(err error) verdict {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return judgeState(refused.Code)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return away
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return away
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, pgconn.ErrConnClosed, net.ErrClosed} {
		if errors.Is(err, lost) {
			return away
		}
	}
	return other
}

// judgeState says what an SQLSTATE means.
func judgeState(state string) verdict {
	switch state {
	case "23505", "23503", "23001": // unique, foreign key, restrict
		return clash
	case "40001", "40P01": // serialization failure, deadlock
		return crowded
	case "25006": // read-only: another server has taken over
		return moved
	case "53100": // disk full
		return full
	case "25P03", // idle in a transaction for too long
		"55P03",                   // lock not available in time
		"57014",                   // statement_timeout
		"57P01", "57P02", "57P03", // shuts down, crashed, starts
		"57P05",                   // idle for too long
		"28000", "28P01", "3D000": // the account or the database is gone
		return away
	case "XX001", "XX002": // damaged data, damaged index
		return corrupt
	}
	switch state[:min(2, len(state))] {
	case "08", "53", "58": // connection, resources (memory, too many connections), system
		return away
	}
	return other
}
