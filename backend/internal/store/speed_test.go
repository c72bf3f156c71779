package store

import (
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/metrics"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

const (
	manyUsers = 100_000
	fewUsers  = 1_000

	speedRounds   = 9
	validateCalls = 400 // in a round, by each contender
	usageCalls    = 24
	speedSessions = 10_000
	batchReports  = 100
	listCalls     = 400 // of each page
	bootID        = "speed"
)

// speedEngines are the databases that are measured, as durable as in earnest.
var speedEngines = map[string]func(b *testing.B) *speedPlace{
	"SQLite": func(b *testing.B) *speedPlace {
		b.Helper()
		return &speedPlace{dir: b.TempDir()}
	},
	"PostgreSQL": func(b *testing.B) *speedPlace {
		b.Helper()
		return &speedPlace{dir: b.TempDir(), server: storetest.StartServer(b)}
	},
}

// speedPlace makes databases that are copies of one.
type speedPlace struct {
	dir    string
	server *storetest.Server // nil: SQLite
	made   int
}

func (p *speedPlace) empty(b *testing.B) Config {
	b.Helper()
	if p.server != nil {
		return Config{URL: p.server.Database(b), MaxConnections: defaultMaxConnections}
	}
	p.made++
	return Config{Path: filepath.Join(p.dir, fmt.Sprint(p.made, ".db"))}
}

// copyOf copies a database that nobody has open.
func (p *speedPlace) copyOf(b *testing.B, from Config) Config {
	b.Helper()
	to := p.empty(b)
	if p.server == nil {
		data, err := os.ReadFile(from.Path)
		if err == nil {
			err = os.WriteFile(to.Path, data, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
		return to
	}
	db, err := sql.Open("pgx", p.server.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	name := func(c Config) string {
		u, err := url.Parse(c.URL)
		if err != nil {
			b.Fatal(err)
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	for _, statement := range []string{"DROP DATABASE " + name(to), "CREATE DATABASE " + name(to) + " TEMPLATE " + name(from)} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	return to
}

// speedService is a control plane on a database, and what it takes to call it.
type speedService struct {
	store   *Store
	handler http.Handler
	world   speedWorld
}

// speedWorld is what copies of a database have in common.
type speedWorld struct {
	users     int
	token     string
	gatewayID string
	prefix    string
}

func speedKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("gateway"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// speedID is the id of the n-th object of a kind.
func speedID(kind string, n int) string {
	sum := sha256.Sum256(fmt.Append(nil, kind, n))
	var id uuid.UUID
	copy(id[:], sum[:])
	binary.BigEndian.PutUint32(id[:4], uint32(n)) // in the order of their making, as the service's own
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id.String()
}

func speedSession(n int) string { return strings.ReplaceAll(speedID("session", n), "-", "") }

func speedPublicKey(n int) ed25519.PublicKey {
	sum := sha256.Sum256(fmt.Append(nil, "key", n))
	return sum[:]
}

// serve opens a control plane on a database.
func (p *speedPlace) serve(b *testing.B, where Config, world speedWorld) *speedService {
	b.Helper()
	records, err := Open(b.Context(), where)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = records.Close() }) // may be closed already
	return &speedService{store: records, world: world, handler: httpHandler(b, records, p.authority(b, records))}
}

func (p *speedPlace) authority(b *testing.B, records *Store) *control.Authority {
	b.Helper()
	key, err := seal.Open(seal.Source{File: filepath.Join(p.dir, "kek"), Make: true})
	if err != nil {
		b.Fatal(err)
	}
	authority, err := control.Open(b.Context(), control.Options{
		Store: records, Sealer: key, Now: time.Now, ServiceName: "Speed", PublicURL: "https://vpn.example.net", Heartbeat: 5 * time.Second,
		KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	return authority
}

func httpHandler(b *testing.B, records *Store, authority *control.Authority) http.Handler {
	b.Helper()
	counters := metrics.New()
	hub := events.NewHub(events.Options{Log: authority, Observer: counters, Logger: slog.New(slog.DiscardHandler)})
	handlers, err := httpapi.New(httpapi.Options{
		Authority: authority, Hub: hub, Log: slog.New(slog.DiscardHandler), Observer: counters, Metrics: http.NotFoundHandler(),
		Ready: records.Ping, RefusalsPerMinute: 6000,
	})
	if err != nil {
		b.Fatal(err)
	}
	return handlers.Public
}

// populate makes a database with so many users, each with a device and a
// subscription, and with live sessions of the first of them.
func (p *speedPlace) populate(b *testing.B, users int) (Config, speedWorld) {
	b.Helper()
	where := p.empty(b)
	records, err := Open(b.Context(), where)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := records.Close(); err != nil {
			b.Error(err)
		}
	}()
	authority := p.authority(b, records)
	world := speedWorld{users: users, prefix: "/" + authority.Identity().Prefix}
	access, err := authority.OpenDev(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	world.token = access.Token
	link, err := authority.OpenLocalGateway(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	code, nonce, public := link[strings.Index(link, "code=")+len("code="):], authority.Challenge(), speedKey().Public().(ed25519.PublicKey)
	hash := sha256.Sum256([]byte(code))
	gateway, _, err := authority.JoinGateway(b.Context(), control.Join{
		Code: code, PublicKey: public, URL: "wss://gw.example.net/t", Proof: control.Proof{
			Nonce: nonce, Signature: ed25519.Sign(speedKey(), slices.Concat([]byte("HTTVPS1 join\x00"), hash[:], public, nonce)),
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	world.gatewayID = gateway.ID
	name := "speed"
	plan, _, err := authority.CreatePlan(b.Context(), control.PlanFields{Name: &name}, control.Once{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UnixMicro()
	fillTable(b, records, "users (id, name, note, disabled_at, created_at)", users, func(n int) []any {
		return []any{speedID("user", n), fmt.Sprintf("user-%06d", n), "", nil, now}
	})
	fillTable(b, records, "devices (id, user_id, name, platform, public_key, generation, revoked_at, last_seen_at, created_at)", users, func(n int) []any {
		return []any{speedID("device", n), speedID("user", n), fmt.Sprintf("phone-%06d", n), "linux", []byte(speedPublicKey(n)), 1, nil, nil, now}
	})
	fillTable(b, records, "subscriptions (id, user_id, plan_id, starts_at, ends_at, created_at)", users, func(n int) []any {
		return []any{speedID("subscription", n), speedID("user", n), plan.ID, now, nil, now}
	})
	fillTable(b, records, "sessions (id, device_id, user_id, subscription_id, gateway_id, boot_id, started_at, ended_at, end_reason)", users, func(n int) []any {
		var ended any = now
		if n < speedSessions {
			ended = nil
		}
		return []any{speedSession(n), speedID("device", n), speedID("user", n), speedID("subscription", n), gateway.ID, bootID, now + int64(n), ended, ""}
	})
	if _, err := records.writer.ExecContext(b.Context(), "ANALYZE"); err != nil {
		b.Fatal(err)
	}
	return where, world
}

// fillTable inserts rows, many with a statement.
func fillTable(b *testing.B, records *Store, table string, rows int, row func(n int) []any) {
	b.Helper()
	const part = 500
	tx, err := records.writer.BeginTx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it does nothing
	for n := 0; n < rows; {
		var (
			text strings.Builder
			args []any
		)
		fmt.Fprint(&text, "INSERT INTO ", table, " VALUES ")
		for first := n; n < min(first+part, rows); n++ {
			if n > first {
				text.WriteString(", ")
			}
			for i, value := range row(n) {
				args = append(args, value)
				before := ", $"
				if i == 0 {
					before = "($"
				}
				fmt.Fprint(&text, before, len(args))
			}
			text.WriteString(")")
		}
		if _, err := tx.ExecContext(b.Context(), text.String(), args...); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}
