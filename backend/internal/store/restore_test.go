package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// lines are rows in memory, as lines of text.
type lines struct {
	table   string
	columns []string
	rows    map[string][]string
	values  map[string][][]any
	order   []string
	begun   func(table string)
}

func newLines() *lines { return &lines{rows: map[string][]string{}, values: map[string][][]any{}} }

func (l *lines) Begin(table string, columns []string) error {
	l.table, l.columns = table, columns
	l.order = append(l.order, table+" "+strings.Join(columns, " "))
	l.rows[table] = []string{}
	if l.begun != nil {
		l.begun(table)
	}
	return nil
}

func (l *lines) Row(values []any) error {
	var cells []string
	for i, v := range values {
		cells = append(cells, fmt.Sprintf("%s=%T:%[2]v", l.columns[i], v))
	}
	slices.Sort(cells) // engines may order columns otherwise
	l.rows[l.table] = append(l.rows[l.table], strings.Join(cells, " "))
	slices.Sort(l.rows[l.table])
	l.values[l.table] = append(l.values[l.table], slices.Clone(values))
	return nil
}

// load gives the rows to a store that is restored.
func (l *lines) load(_ context.Context, rows Rows) error {
	for _, begin := range l.order {
		words := strings.Fields(begin)
		if err := rows.Begin(words[0], words[1:]); err != nil {
			return err
		}
		for _, row := range l.values[words[0]] {
			if err := rows.Row(row); err != nil {
				return err
			}
		}
	}
	return nil
}

func nothing(context.Context, control.Tx) error { return nil }

func dumpOf(t *testing.T, s *Store) (*lines, int64) {
	t.Helper()
	l := newLines()
	var schema int64
	err := s.Dump(t.Context(), func(_ context.Context, _ control.Tx, version int64) error { schema = version; return nil }, l)
	if err != nil {
		t.Fatal(err)
	}
	return l, schema
}

// everyRow has one row or more of each table that a backup holds.
var everyRow = []string{
	"INSERT INTO settings (name, value) VALUES ('service_id', 'a service'), ('last_ping', 'long ago'), ('bootstrap_code', 'x')",
	"INSERT INTO secrets (id, kind, sealed, created_at) VALUES ('s', 'signing', %x'0001ff', 1)",
	"INSERT INTO knock_keys (number, sealed, active_from, created_at) VALUES (1, %x'02', 2, 3)",
	"INSERT INTO regions (id, code, name, created_at) VALUES ('r', 'eu', 'Ünïcode \\ \" <&> ''quotes'' ☃', 1)",
	"INSERT INTO plans (id, name, max_devices, max_sessions, max_streams, max_udp, duration_days, created_at) VALUES ('p', 'plan', 1, 2, 3, 0, NULL, 9007199254740993)",
	"INSERT INTO plan_regions (plan_id, region_id) VALUES ('p', 'r')",
	"INSERT INTO users (id, name, note, disabled_at, created_at) VALUES ('u', 'anna', '', NULL, 1), ('v', 'bob', 'n', 5, 1)",
	"INSERT INTO subscriptions (id, user_id, plan_id, starts_at, ends_at, created_at) VALUES ('s', 'u', 'p', 1, NULL, 1)",
	"INSERT INTO devices (id, user_id, name, platform, public_key, generation, created_at) VALUES ('d', 'u', 'laptop', 'linux', %x'0a', 1, 1)",
	"INSERT INTO invitations (id, user_id, code_hash, expires_at, used_at, device_id, created_at) VALUES ('i', 'u', %x'01', 1, 2, 'd', 1), ('j', 'u', %x'02', 9000000000000000, NULL, NULL, 1)",
	"INSERT INTO gateways (id, name, region_id, join_code_hash, join_expires_at, joined_at, public_key, url, version, boot_id, lease_until, sessions, streams, created_at) VALUES ('g', 'gw', 'r', %x'01', 1, 2, %x'03', 'wss://a/b', '1', 'b', 99, 7, 8, 1), ('h', 'new', 'r', %x'02', 9000000000000000, NULL, NULL, '', '', '', NULL, 0, 0, 1)",
	"INSERT INTO sessions (id, device_id, user_id, subscription_id, gateway_id, boot_id, started_at, ended_at, end_reason) VALUES ('01', 'd', 'u', 's', 'g', 'b', 1, NULL, ''), ('02', 'd', 'u', 's', 'g', 'b', 1, 2, 'done')",
	"INSERT INTO operators (id, name, role, created_at) VALUES ('o', 'root', 'owner', 1)",
	"INSERT INTO api_tokens (id, operator_id, hash, expires_at, created_at) VALUES ('t', 'o', %x'0b', 1, 1)",
	"INSERT INTO sign_ins (operator_id, password, sealed_totp, last_step, guesses_back, failures, changed_at) VALUES ('o', 'hash', %x'0f', 1, 2, 0, 3)",
	"INSERT INTO recovery_codes (operator_id, hash) VALUES ('o', %x'10')",
	"INSERT INTO known_clients (operator_id, hash, guesses_back, seen_at, created_at) VALUES ('o', %x'11', 1, 2, 3)",
	"INSERT INTO idempotency_keys (operator_id, key, request, object_id, created_at) VALUES ('o', 'k', %x'0c', 'u', 1)",
	"UPDATE event_log SET latest = 12, low = 3",
	"INSERT INTO usage_reports (gateway_id, boot_id, session_id, sequence, up, down, counted_at, received_at, fault) VALUES ('g', 'b', '01', 1, 2, 3, 4, 5, '')",
	"INSERT INTO usage_sessions (gateway_id, boot_id, session_id, device_id, user_id, subscription_id, sequence, up, down, faults, counted_at, received_at) VALUES ('g', 'b', '01', 'd', 'u', 's', 1, 2, 3, 0, 4, 5)",
	"INSERT INTO usage_buckets (subscription_id, bucket, gateway_id, up, down) VALUES ('s', 1, 'g', 2, 3)",
	"INSERT INTO quotas (subscription_id, from_bucket, to_bucket, used, warned, counted_at) VALUES ('s', 0, 0, 0, 0, 0)",
	"INSERT INTO quota_leases (subscription_id, gateway_id, boot_id, version, allowance, booked, used, ends_at) VALUES ('s', 'g', 'b', 4, 5, 1, 2, 9)",
	"INSERT INTO outline_servers (id, name, region_id, host, port, weight, priority, capacity, managed, fallback, health, created_at) VALUES ('e', 'exit', 'r', 'h', 1, 1, 1, 1, 0, 0, 'up', 1)",
	"INSERT INTO outline_keys (server_id, generation, cipher, prefix, sealed, created_at) VALUES ('e', 1, 'c', %x'', %x'0d', 1)",
	"INSERT INTO webhooks (id, url, description, events, disabled_at, disabled_why, failing_since, failures, succeeded_at, created_at) VALUES ('w', 'https://example.com', '', 'user.expired', NULL, '', 1, 2, 3, 4)",
	"INSERT INTO webhook_secrets (webhook_id, generation, sealed, ends_at, created_at) VALUES ('w', 1, %x'12', NULL, 1)",
	"INSERT INTO audit (number, at, action, object_id, actor_kind, actor_id, actor_name, token_id, address, reason, before, after, hash, signature) VALUES (1, 1, 'a', 'o', 'system', '', '', '', '', '', '', '', %x'01', %x'02')",
	"UPDATE users SET max_devices = 3, quota_bytes = 0, quota_period = 'day', own_regions = 1 WHERE id = 'v'",
	"INSERT INTO user_regions (user_id, region_id) VALUES ('v', 'r')",
}

// everything fills a database with everyRow and more users than go in one statement.
func everything(t *testing.T, cfg Config) {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, statement := range everyRow {
		bytes := "X'"
		if cfg.URL != "" {
			bytes = `'\x`
		}
		statement = strings.ReplaceAll(statement, "%x'", bytes)
		if _, err := s.writer.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for n := range 2*fillBatch + 1 {
		query := fmt.Sprintf("INSERT INTO users (id, name, note, created_at) VALUES ('user %03d', 'user %[1]d', '', 1)", n)
		if _, err := s.writer.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
}

// A table that a backup lacks is lost with the machine; what is new has to be in one
// list or the other.
func TestEveryTableIsInABackupOrSaysWhyNot(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		query := "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
		if cfg.URL != "" {
			query = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
		}
		s := openTest(t, cfg)
		rows, err := s.reader.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		known := maps.Clone(undumpedTables)
		for _, table := range dumpedTables {
			if known[table.name] != "" {
				t.Errorf("%s is in both lists", table.name)
			}
			known[table.name] = "dumped"
		}
		delete(known, sqliteVersions)
		delete(known, postgresVersions)
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			if name != sqliteVersions && name != postgresVersions && known[name] == "" {
				t.Errorf("table %s is neither in dumpedTables nor in undumpedTables", name)
			}
			delete(known, name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if len(known) > 0 {
			t.Errorf("the lists name tables that there are not: %v", known)
		}
	})
}

func TestWhatIsDumpedFromOneEngineIsTheSameOnTheOther(t *testing.T) {
	engines := map[string]func(t *testing.T) Config{
		"SQLite":     func(t *testing.T) Config { t.Helper(); return Config{Path: filepath.Join(t.TempDir(), "x.db")} },
		"PostgreSQL": func(t *testing.T) Config { t.Helper(); return Config{URL: storetest.Database(t)} },
	}
	for from, source := range engines {
		for to, target := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				cfg := source(t)
				everything(t, cfg)
				dumped, schema := dumpOf(t, openTest(t, cfg))
				for _, table := range dumpedTables {
					if len(dumped.rows[table.name]) == 0 {
						t.Errorf("the test has no row of %s", table.name)
					}
				}
				if text := strings.Join(dumped.rows["settings"], "\n"); strings.Contains(text, settingPing) {
					t.Errorf("settings: %s", text)
				}
				into := target(t)
				if err := CheckEmpty(t.Context(), into, schema); err != nil {
					t.Fatal(err)
				}
				if err := Restore(t.Context(), into, schema, dumped.load, nothing); err != nil {
					t.Fatal(err)
				}
				restored, _ := dumpOf(t, openTest(t, into))
				if diff := cmp.Diff(dumped.rows, restored.rows); diff != "" {
					t.Errorf("what was restored differs (-dumped +restored):\n%s", diff)
				}
				if err := CheckEmpty(t.Context(), into, schema); !errors.Is(err, ErrNotEmpty) {
					t.Errorf("CheckEmpty of what was restored = %v", err)
				}
			})
		}
	}
}

func TestADumpIsOfOneMomentWhileOthersWrite(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		everything(t, cfg)
		s := openTest(t, cfg)
		looking, err := Look(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer looking.Close()
		before, _ := dumpOf(t, looking)
		l := newLines()
		l.begun = func(table string) {
			err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
				return tx.InsertUser(ctx, control.User{ID: "during " + table, Name: "during " + table, CreatedAt: time.UnixMicro(1)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := looking.Dump(t.Context(), func(context.Context, control.Tx, int64) error { return nil }, l); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before.rows, l.rows); diff != "" {
			t.Errorf("the dump has what was written meanwhile:\n%s", diff)
		}
		if after, _ := dumpOf(t, looking); len(after.rows["users"]) != len(before.rows["users"])+len(dumpedTables) {
			t.Errorf("%d users after %d", len(after.rows["users"]), len(before.rows["users"]))
		}
	})
}

func TestARestoreHappensWholeOrNotAtAll(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		source := Config{Path: filepath.Join(t.TempDir(), "source.db")}
		everything(t, source)
		whole, schema := dumpOf(t, openTest(t, source))
		broken := errors.New("broken")
		change := func(edit func(l *lines)) *lines {
			l := newLines()
			l.order = slices.Clone(whole.order)
			for table, rows := range whole.values {
				l.values[table] = slices.Clone(rows)
			}
			edit(l)
			return l
		}
		users := slices.IndexFunc(whole.order, func(s string) bool { return strings.HasPrefix(s, "users ") })
		for name, tc := range map[string]struct {
			schema int64
			load   func(context.Context, Rows) error
			finish func(context.Context, control.Tx) error
			want   error
			clash  bool // want a *control.ConflictError
		}{
			"the rows end in the middle": {load: func(ctx context.Context, rows Rows) error {
				return errors.Join(whole.load(ctx, rows), broken)
			}, want: broken},
			"what follows fails": {load: whole.load, finish: func(context.Context, control.Tx) error { return broken }, want: broken},
			"an unknown table": {load: change(func(l *lines) {
				l.order[0] = "sqlite_master name"
			}).load, want: errUnknownColumn},
			"an unknown column": {load: change(func(l *lines) {
				l.order[users] = strings.Replace(l.order[users], " note", " note=note", 1)
			}).load, want: errUnknownColumn},
			"rows that clash": {load: change(func(l *lines) {
				l.values["users"] = append(l.values["users"], l.values["users"][0])
			}).load, clash: true},
			"a row that refers to nothing": {load: change(func(l *lines) { l.values["users"] = nil }).load, clash: true},
			"a newer schema":               {schema: 1 << 40, load: whole.load, want: ErrNewerSchema},
		} {
			if tc.schema == 0 {
				tc.schema = schema
			}
			if tc.finish == nil {
				tc.finish = nothing
			}
			err := Restore(t.Context(), cfg, tc.schema, tc.load, tc.finish)
			if _, clashed := errors.AsType[*control.ConflictError](err); err == nil || clashed != tc.clash || !tc.clash && !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", name, err, tc.want)
			}
			if err := CheckEmpty(t.Context(), cfg, schema); err != nil {
				t.Errorf("%s: something remained: %v", name, err)
			}
		}
		if err := Restore(t.Context(), cfg, schema, whole.load, nothing); err != nil {
			t.Errorf("after all these: %v", err)
		}
		if err := Restore(t.Context(), cfg, schema, whole.load, nothing); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second time: %v, want %v", err, ErrNotEmpty)
		}
	})
}

// stepsUpTo returns the steps of the schema that a program of that time had.
func stepsUpTo(t *testing.T, last string) fs.FS {
	t.Helper()
	steps := make(fstest.MapFS)
	err := fs.WalkDir(migrations, "migrations", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() > last {
			return err
		}
		data, err := fs.ReadFile(migrations, path)
		steps[strings.TrimPrefix(path, "migrations/")] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestABackupOfAnOlderSchemaIsBroughtUpToDate(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		old := Config{Path: filepath.Join(t.TempDir(), "old.db"), steps: stepsUpTo(t, "00006_terms.sql")}
		s := openTest(t, old)
		for _, statement := range everyRow[:8] {
			if _, err := s.writer.ExecContext(t.Context(), strings.ReplaceAll(statement, "%x'", "X'")); err != nil {
				t.Fatal(err)
			}
		}
		dumped, schema := dumpOf(t, s)
		if schema != 6 || dumped.rows["audit"] != nil {
			t.Fatalf("schema %d with the tables %v", schema, slices.Sorted(maps.Keys(dumped.rows)))
		}
		if err := Restore(t.Context(), cfg, schema, dumped.load, nothing); err != nil {
			t.Fatal(err)
		}
		restored, now := dumpOf(t, openTest(t, cfg))
		if want := openTest(t, Config{Path: filepath.Join(t.TempDir(), "new.db")}).newestStep; now != want {
			t.Errorf("the schema is %d, want %d", now, want)
		}
		// Step 7 makes a row for each subscription, step 9 a setting.
		if len(restored.rows["quotas"]) != 1 || !strings.Contains(strings.Join(restored.rows["settings"], " "), settingOldestSchema) {
			t.Errorf("quotas: %v, settings: %v", restored.rows["quotas"], restored.rows["settings"])
		}
		// Later steps have more columns of users.
		for i, was := range dumped.rows["users"] {
			now := strings.Fields(restored.rows["users"][i])
			for cell := range strings.FieldsSeq(was) {
				if !slices.Contains(now, cell) {
					t.Errorf("of a user %s is gone: %s", cell, restored.rows["users"][i])
				}
			}
		}
		if steps, err := Pending(t.Context(), cfg); err != nil || len(steps) > 0 {
			t.Errorf("pending: %v, %v", steps, err)
		}
	})
}

func TestWhatRanWhenTheBackupWasMadeDoesNotComeBack(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		everything(t, cfg)
		s := openTest(t, cfg)
		made, now := time.UnixMicro(5_000_000).UTC(), time.UnixMicro(900_000_000_000).UTC()
		settle := func(now time.Time) (log control.EventLog) {
			t.Helper()
			err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
				err := tx.SettleRestored(ctx, made, now)
				if err == nil {
					log, err = tx.Events(ctx, 0, 0)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return log
		}
		log := settle(now)
		for _, after := range []int64{0, 3, 12, 13, 1000, log.Latest - 1} {
			if !log.Gap(after) {
				t.Errorf("a gateway that has version %d sees no gap: %+v", after, log)
			}
		}
		if log.Latest != now.UnixMicro() {
			t.Errorf("the log goes on at %d, want the time %d", log.Latest, now.UnixMicro())
		}
		if again := settle(now.Add(-time.Hour)); again.Latest <= log.Latest || !again.Gap(log.Latest) {
			t.Errorf("with a clock that went back the log goes from %+v on at %+v", log, again)
		}
		err := s.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
			live, err := tx.Session(ctx, "01")
			if err != nil || live.EndedAt == nil || !live.EndedAt.Equal(made) || live.EndReason != "gateway_lost" {
				t.Errorf("the session that was live: %+v, %v", live, err)
			}
			ended, err := tx.Session(ctx, "02")
			if err != nil || ended.EndReason != "done" {
				t.Errorf("the session that had ended: %+v, %v", ended, err)
			}
			joined, err := tx.Gateway(ctx, "g")
			if err != nil || joined.LeaseUntil != nil || joined.Sessions != 0 || joined.BootID != "b" {
				t.Errorf("the gateway: %+v, %v", joined, err)
			}
			pending, err := tx.Gateway(ctx, "h")
			if err != nil || !pending.JoinExpiresAt.Equal(made) {
				t.Errorf("the link to join: %+v, %v", pending, err)
			}
			if _, err := tx.Invitation(ctx, "j"); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("the invitation that nobody had used: %v", err)
			}
			_, err = tx.Invitation(ctx, "i")
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
