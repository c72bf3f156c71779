package store

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/backend/internal/control"
)

func TestWritersAreServedInTheOrderInWhichTheyCame(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{Path: filepath.Join(dir, "x.db")})
		var (
			running sync.WaitGroup
			mu      sync.Mutex // guards the following field
			served  []int
		)
		release := make(chan struct{})
		write := func(ctx context.Context, fn func()) {
			running.Go(func() {
				err := s.Write(ctx, func(context.Context, control.Tx) error { fn(); return nil })
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		write(t.Context(), func() { <-release })
		var want []int
		for i := range 32 {
			ctx, cancel := context.WithCancel(t.Context())
			write(ctx, func() {
				mu.Lock()
				defer mu.Unlock()
				served = append(served, i)
			})
			if i%5 == 0 { // some do not wait so long
				cancel()
				synctest.Wait()
				continue
			}
			defer cancel()
			want = append(want, i)
		}
		close(release)
		running.Wait()
		if !slices.Equal(served, want) {
			t.Errorf("served were %v, want %v", served, want)
		}
	})
}
