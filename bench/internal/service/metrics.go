package service

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics reads the gateway's metrics, by name and labels as they are written.
func (s *Service) Metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.admin.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("gateway's metrics: %w", err)
	}
	defer resp.Body.Close()
	values := make(map[string]float64)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values, lines.Err()
}

// collections is how many garbage collections leave nothing that dates from
// before: one finds it, the next has swept it.
const collections = 2

// Collect has the gateway collect its garbage, by making it produce some: each
// answer with its metrics is a little.
func (s *Service) Collect(ctx context.Context) error {
	const most = 5_000
	var first float64
	for i := range most {
		m, err := s.Metrics(ctx)
		if err != nil {
			return err
		}
		count := m["go_gc_duration_seconds_count"]
		if i == 0 {
			first = count
		}
		if count >= first+collections {
			return nil
		}
	}
	return fmt.Errorf("the gateway did not collect its garbage within %d answers", most)
}
