package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestALostAddressIsToldWhenThereIsOneAgain(t *testing.T) {
	const local = "127.0.0.1/8 ::1/128 fe80::1/64 "
	for name, tc := range map[string]struct {
		seen []string // at each look
		want int      // of the looks at which it is told; -1: at none
	}{
		"the same all the time":          {[]string{"192.0.2.1/24", "192.0.2.1/24", "192.0.2.1/24"}, -1},
		"another one":                    {[]string{"192.0.2.1/24", "198.51.100.1/24", "198.51.100.1/24"}, 1},
		"another one after none":         {[]string{"192.0.2.1/24", "", "", "198.51.100.1/24"}, 3},
		"the same one after none":        {[]string{"192.0.2.1/24", "", "192.0.2.1/24"}, 2},
		"one more":                       {[]string{"192.0.2.1/24", "192.0.2.1/24 2001:db8::1/64", "192.0.2.1/24 2001:db8::1/64"}, -1},
		"one of two":                     {[]string{"192.0.2.1/24 2001:db8::1/64", "2001:db8::1/64", "2001:db8::1/64"}, 1},
		"the first one":                  {[]string{"", "192.0.2.1/24", "192.0.2.1/24"}, -1},
		"they cannot be had for a while": {[]string{"192.0.2.1/24", "error", "198.51.100.1/24"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks, told := -1, -1
				ctx, cancel := context.WithTimeout(t.Context(), networkCheck*time.Duration(len(tc.seen))-time.Millisecond)
				defer cancel()
				err := watchNetwork(ctx, func() (list []net.Addr, err error) {
					looks++
					if tc.seen[looks] == "error" {
						return nil, errors.New("busy")
					}
					for text := range strings.FieldsSeq(local + tc.seen[looks]) {
						ip, network, err := net.ParseCIDR(text)
						if err != nil {
							t.Fatal(err)
						}
						list = append(list, &net.IPNet{IP: ip, Mask: network.Mask})
					}
					return list, nil
				}, func() {
					if told >= 0 {
						t.Errorf("told at look %d, and at %d", told, looks)
					}
					told = looks
				})
				if err != nil || told != tc.want || looks != len(tc.seen)-1 {
					t.Errorf("told at look %d of %d, want %d; %v", told, looks, tc.want, err)
				}
			})
		})
	}
}
