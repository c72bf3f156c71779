package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestABusIsShownWithoutItsAccounts(t *testing.T) {
	for given, want := range map[NATSURL]string{
		"":                                   "",
		"nats://a:4222":                      "nats://a:4222",
		"tls://user:hunter2@a,nats://b:1":    "tls://(secret)@a,nats://b:1",
		"nats://hunter2@a":                   "nats://(secret)@a",
		"hunter2":                            "(secret)",
		"nats://user:hunter2@a:port/hunter2": "(secret)",
	} {
		text, err := given.MarshalText()
		if err != nil || string(text) != want || given.String() != want {
			t.Errorf("shown as %s, %v, want %s", text, err, want)
		}
		if all := fmt.Sprintf("%v %+v %#v %s %q", given, given, given, given, given); strings.Contains(all, "hunter2") {
			t.Errorf("the secret is shown: %s", all)
		}
		if given.Reveal() != string(given) {
			t.Errorf("Reveal = %s", given.Reveal())
		}
	}
}

func TestTwoReplicasNeedADatabaseServerAndABus(t *testing.T) {
	c := valid()
	c.Replicas, c.Database.URL, c.NATS.URL = 2, "postgres://u:p@localhost/x", "nats://u:p@a:4222,tls://b"
	if err := c.Validate(); err != nil {
		t.Errorf("Validate = %v", err)
	}
}
