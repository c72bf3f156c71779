package cli

import "testing"

func TestAmountsAreReadAndShownWithTheirUnits(t *testing.T) {
	for text, want := range map[string]struct {
		n     size
		shown string
	}{
		"0":                    {0, "0"},
		"1000":                 {1000, "1kB"},
		"1024":                 {1024, "1KiB"},
		"1025":                 {1025, "1025"},
		"100GiB":               {100 << 30, "100GiB"},
		"100 GiB":              {100 << 30, "100GiB"},
		"1048576 MiB":          {1 << 40, "1TiB"},
		"250GB":                {250e9, "250GB"},
		"4194304TiB":           {1 << 62, "4194304TiB"},
		"4194305TiB":           {-1, ""},
		"-1":                   {-1, ""},
		"1.5GiB":               {-1, ""},
		"GiB":                  {-1, ""},
		"9GiBGiB":              {-1, ""},
		"20M":                  {-1, ""},
		"":                     {-1, ""},
		"10000000000000000000": {-1, ""},
	} {
		var s size
		err := s.Set(text)
		if (err == nil) != (want.n >= 0) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && (s != want.n || s.String() != want.shown) {
			t.Errorf("%q is %d, shown as %s, want %d as %s", text, int64(s), s, int64(want.n), want.shown)
		}
	}
	var r rate
	if err := r.Set("20M"); err != nil || r != 20e6 || r.String() != "20M" {
		t.Errorf("20M is %d (%s), %v", int64(r), r, err)
	}
}
