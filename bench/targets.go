package main

import (
	"cmp"
	"math"
)

// target is what a ratio, or where there is none HTTVPS's own figure, has to be.
type target struct {
	name   string
	atMost bool // else at least
	wanted float64
	of     string // what it is a share of, or its unit
}

// targets lists them in the order in which they are shown.
func targets() []target {
	return []target{
		{"stream_1_down", false, 0.8, "× relay"},
		{"stream_1_up", false, 0.8, "× relay"},
		{"streams_16_down", false, 0.8, "× relay's 16"},
		{"streams_256_down", false, 0.8, "× relay's 16"},
		{"resumable_down", false, 0.95, "× unresumable"},
		{"resumable_up", false, 0.95, "× unresumable"},
		{"padding_down", false, 0.95, "× unpadded"},
		{"padding_up", false, 0.95, "× unpadded"},
		{"padding_page", true, 1.05, "× unpadded"},
		{"jain_16", false, 0.95, ""},
		{"jain_256", false, 0.95, ""},
		{"cpu_per_gib_down", true, 1.35, "× relay"},
		{"cpu_per_gib_up", true, 1.35, "× relay"},
		{"socks_cpu_down", true, 1.15, "× SDK"},
		{"socks_cpu_up", true, 1.15, "× SDK"},
		{"socks_cpu_16", true, 1.15, "× SDK"},
		{"opens_32", false, 3.5, "× relay"},
		{"echo_loaded_p99", true, 0.25, "× relay"},
		{"link_echo_p95", true, 1.3, "× raw TCP"},
		{"link_long_speed", false, 0.85, "× raw TCP"},
		{"stalled_80_down", false, 0.8, "× alone"},
		{"stalled_80_up", false, 0.8, "× alone"},
		{"connect_idle", true, 25, "MiB"},
		{"connect_busy_50", true, 60, "MiB"},
		{"idle_session", true, 80, "KiB"},
		{"idle_stream_client", true, 14, "KiB"},
		{"idle_stream_gateway", true, 14, "KiB"},
		{"idle_10000", true, 0.8, "GB"},
		{"handshakes_1000_failed", true, 0, ""},
		{"speed_limit_down_off", true, 5, "%"},
		{"speed_limit_up_off", true, 5, "%"},
		{"uplink_down_jain", false, 0.95, ""},
		{"uplink_up_jain", false, 0.95, ""},
		{"outline_cpu_down", true, 2, "× direct"},
		{"outline_cpu_up", true, 2, "× direct"},
		{"failover_p99", true, 3, "s"},
		{"failover_sessions_lost", true, 0, ""},
		{"reset_dials", true, 256, ""},
		{"reset_stopped", true, 2, "s"},
		{"reset_echo_p99_added", true, 20, "ms"},
		{"reset_goroutines_left", true, 0, ""},
		{"hostile_memory", true, 36, "MiB"},
	}
}

// comparison is how a target reads: value, comparison, wanted.
func (t target) comparison() string {
	if t.atMost {
		return "<="
	}
	return ">="
}

// met reports whether value is good enough. What is not a number is not.
func (t target) met(value float64) bool {
	if math.IsNaN(value) {
		return false
	}
	if t.atMost {
		return cmp.Compare(value, t.wanted) <= 0
	}
	return cmp.Compare(value, t.wanted) >= 0
}
