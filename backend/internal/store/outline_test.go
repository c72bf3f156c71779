package store

import (
	"strings"
	"testing"
)

// A place is taken often, and while others wait for the server: what counts the
// server's sessions reads the index of those that have one, and nothing else.
func TestTheSessionsOfAnOutlineServerAreCountedFromTheirIndexOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		s := openTest(t, cfg)
		populate(t, s, 3000)
		for _, statement := range []string{
			"UPDATE sessions SET outline_server_id = 'a' WHERE id < '000000000000000000000000000001'",
			"UPDATE sessions SET outline_server_id = 'b', ended_at = 1 WHERE outline_server_id IS NULL AND id < '000000000000000000000000000008'",
		} {
			if _, err := s.writer.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		explain := "EXPLAIN QUERY PLAN "
		maintain := []string{"ANALYZE"}
		if cfg.URL != "" {
			explain, maintain = "EXPLAIN ", []string{"VACUUM ANALYZE sessions"} // as autovacuum does sooner or later
		}
		for _, statement := range maintain {
			if _, err := s.writer.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		for query, args := range map[string][]any{
			countExits: {"a"},
			takeExit:   {strings.Repeat("0", 32), "a", "", nil, 5},
		} {
			plan := strings.Join(s.explain(t, explain+query, args), "\n")
			if !strings.Contains(plan, "sessions_outline") || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "SCAN ") {
				t.Errorf("%s\n%s", query, plan)
			}
		}
	})
}
