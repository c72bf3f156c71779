package gate

import "testing"

func TestTotalIsWhatTheProcessHasDescriptorsFor(t *testing.T) {
	for name, tc := range map[string]struct {
		total       int
		descriptors uint64
		want        int
	}{
		"plenty":            {total: 1000, descriptors: 1 << 20, want: 1000},
		"an eighth of few":  {total: 1000, descriptors: 512, want: 64},
		"at least one":      {total: 1000, descriptors: 3, want: 1},
		"not known":         {total: 1000, descriptors: 0, want: 1000},
		"no limit there is": {total: 1000, descriptors: 1<<64 - 1, want: 1000},
	} {
		if got := affordable(tc.total, tc.descriptors); got != tc.want {
			t.Errorf("%s: %d of %d with %d descriptors, want %d", name, got, tc.total, tc.descriptors, tc.want)
		}
	}
}
