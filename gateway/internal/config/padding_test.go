package config

import "testing"

func TestWithoutPaddingThereIsNoPolicy(t *testing.T) {
	cfg := Default()
	if p := cfg.Padding.Policy(); p == nil || p.Check() != nil {
		t.Errorf("the policy of the defaults: %+v", p)
	}
	cfg.Padding.Enabled = false
	if p := cfg.Padding.Policy(); p != nil {
		t.Errorf("a policy though it is off: %+v", p)
	}
}
