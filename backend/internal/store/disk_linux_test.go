package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

func TestWithoutRoomForABackupNothingIsUpdated(t *testing.T) {
	dir := storetest.SmallDisk(t, "4")
	cfg := Config{Path: filepath.Join(dir, "x.db")}
	openAndClose(t, cfg)
	storetest.Fill(t, dir, spare)
	newer := cfg
	newer.steps = withStep(t, furtherTable)
	if _, err := Open(t.Context(), newer); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "KiB free") {
		t.Errorf("Open = %v, want ErrNoRoom with figures", err)
	}
	if found := backups(t, cfg); len(found) != 0 {
		t.Errorf("there are %v", found)
	}
	openTest(t, cfg) // as it was
}

func TestAFullDiskStopsWritersOnlyAndOnlyForAsLong(t *testing.T) {
	dir := storetest.SmallDisk(t, "4")
	cfg := Config{Path: filepath.Join(dir, "x.db")}
	s := openTest(t, cfg)
	if err := putNote(t.Context(), s, "before"); err != nil {
		t.Fatal(err)
	}
	ballast := storetest.Fill(t, dir, 0)
	var told int
	var err error
	for range 1000 { // what SQLite has already has some room
		if err = putNote(t.Context(), s, fmt.Sprint(told+1)); err != nil {
			break
		}
		told++
	}
	if !errors.Is(err, control.ErrStorageFull) || !errors.Is(err, control.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Write on a full disk = %v, want ErrStorageFull that says why", err)
	}
	want := "before"
	if told > 0 {
		want = fmt.Sprint(told)
	}
	wantNote(t, s, want)
	if err := s.Ping(t.Context()); !errors.Is(err, control.ErrStorageFull) {
		t.Errorf("Ping on a full disk = %v, want ErrStorageFull", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Ping(t.Context()), putNote(t.Context(), s, "after")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	var verdict string
	if err := s.writer.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check = %q, %v", verdict, err)
	}
	wantNote(t, s, "after")
}

func TestAServerOfPostgreSQLWithoutRoomStopsWritersOnlyAndOnlyForAsLong(t *testing.T) {
	dir := storetest.SmallDisk(t, "24")
	s := openTest(t, Config{URL: storetest.StartServer(t).DatabaseOn(t, dir)})
	if err := putNote(t.Context(), s, "before"); err != nil {
		t.Fatal(err)
	}
	for range 100 { // what it wrote before is room for it later
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ballast := storetest.Fill(t, dir, 0)
	long := strings.Repeat("x", 2000)
	var told int
	var err error
	for range 10000 {
		err = s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
			return tx.PutSetting(ctx, fmt.Sprint("note", told+1), long)
		})
		if err != nil {
			break
		}
		told++
	}
	if !errors.Is(err, control.ErrStorageFull) {
		t.Fatalf("Write without room = %v, want ErrStorageFull", err)
	}
	// A small change may well find some room.
	if err := s.Ping(t.Context()); !errors.Is(err, control.ErrStorageFull) {
		t.Errorf("Ping without room = %v, want ErrStorageFull", err)
	}
	wantNote(t, s, "before")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Ping(t.Context()), putNote(t.Context(), s, "after")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	err = s.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		for i := range told {
			if text, err := tx.Setting(ctx, fmt.Sprint("note", i+1)); err != nil || text != long {
				t.Errorf("note %d is %q, %v", i+1, text, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
