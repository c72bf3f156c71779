package control_test

import (
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// onBoth runs a test on each engine.
func onBoth(t *testing.T, test func(t *testing.T, dir string, where store.Config)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) {
		dir := t.TempDir()
		test(t, dir, store.Config{Path: filepath.Join(dir, "x.db")})
	})
	t.Run("PostgreSQL", func(t *testing.T) { test(t, t.TempDir(), store.Config{URL: storetest.Database(t)}) })
}

func TestADeviceThatAsksManyTimesAtOnceIsEnrolledOnceOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		for n := range uint32(3) { // the first round opens connections
			invitation, key := w.invite(w.subscriber(1, 1)), testKey(n)
			var (
				group    sync.WaitGroup
				enrolled atomic.Int64
				device   atomic.Value
			)
			for range 16 {
				group.Go(func() {
					got, err := w.enrol(key, invitation)
					if err != nil {
						t.Errorf("Enroll = %v, want the one device", err)
						return
					}
					if got.New {
						enrolled.Add(1)
					}
					if earlier := device.Swap(got.Device.ID); earlier != nil && earlier != got.Device.ID {
						t.Errorf("two devices were enrolled: %v and %s", earlier, got.Device.ID)
					}
				})
			}
			group.Wait()
			if enrolled.Load() != 1 {
				t.Errorf("enrolled %d times, want once", enrolled.Load())
			}
		}
	})
}

func TestProcessesThatStartAtOnceOnPostgreSQLAreOneService(t *testing.T) {
	dir, where := t.TempDir(), store.Config{URL: storetest.Database(t)}
	openWorldOn(t, dir, where) // makes the key file, which all are given
	where.URL = storetest.Database(t)
	if _, err := store.Migrate(t.Context(), where); err != nil {
		t.Fatal(err)
	}
	worlds := make([]*world, 6)
	var group sync.WaitGroup
	for i := range worlds {
		group.Go(func() { worlds[i], _ = openWorldOn(t, dir, where) })
	}
	group.Wait()
	if slices.Contains(worlds, nil) {
		t.Fatal("one did not start")
	}
	user := worlds[0].subscriber(len(worlds), 1)
	for i, w := range worlds {
		if diff := cmp.Diff(worlds[0].Identity(), w.Identity()); diff != "" {
			t.Errorf("two services came to be:\n%s", diff)
		}
		if jwks(t, w.Authority).Keys[0].ID != jwks(t, worlds[0].Authority).Keys[0].ID {
			t.Error("two signing keys are in use")
		}
		key, invitation := testKey(uint32(i)), worlds[0].invite(user)
		proof := worlds[0].proof(key, "enrol", invitation)
		if _, err := w.Enroll(t.Context(), control.Enrolment{Code: invitation, PublicKey: public(key), Proof: proof, Name: "laptop"}); err != nil {
			t.Errorf("a challenge of one is not good for the other: %v", err)
		}
	}
}
