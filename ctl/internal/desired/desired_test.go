package desired_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/ctl/internal/desired"
)

func read(t *testing.T, texts ...string) *desired.Wanted {
	t.Helper()
	w := new(desired.Wanted)
	for i, text := range texts {
		if err := w.Read(fmt.Sprintf("f%d", i), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// problems returns the mistakes in their order, as people read them.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestEveryMistakeIsToldAtOnceWithItsLine(t *testing.T) {
	w := read(t, `regions:
  - code: eu
    titel: Europe
  - {name: no code}
plans:
  - name: basic
    max_devices: 0
    quota_bytes: a lot
    quota_period: yearly
    quota_period: day
    regions: eu
    speed_up_bps: 20Mbit
    quota_warnings: [80, 100]
    starts_on_first_use: "yes"
outline_servers:
  - name: eu-1
    region: eu
    access_key: ss://planted
    access_key_file: a
    access_key_env: B
users:
  - name: 7
  - name: anna
    plan:
    ends_at: tomorrow
    limits: {max_devices: 1001, upload: 1, regions: [1]}
  - name: anna
teams: []
`, "regions: {}\n---\nplans:\n - [1]\n", "users:\n  - name: x\n bad: indent\n")
	want := []string{
		"f0:3: regions[0].titel: unknown key: want code or name",
		"f0:4: regions[1]: has no code",
		"f0:7: plans[0].max_devices: want 1 to 1000",
		"f0:8: plans[0].quota_bytes: want a whole number, with a unit or without, like 20MiB",
		"f0:9: plans[0].quota_period: want none, day, week, month, rolling",
		"f0:10: plans[0].quota_period: given twice, first on line 9",
		"f0:11: plans[0].regions: want a list of texts",
		"f0:12: plans[0].speed_up_bps: want a whole number, with a unit or without, like 20M",
		"f0:13: plans[0].quota_warnings: want numbers from 1 to 99",
		"f0:14: plans[0].starts_on_first_use: want true or false",
		"f0:18: outline_servers[0].access_key: a secret does not belong here: name a file with it (access_key_file), or an environment variable (access_key_env)",
		"f0:16: outline_servers[0]: access_key_file and access_key_env say the same thing: give one",
		"f0:22: users[0].name: want a text; a number or a word like yes goes in quotes",
		"f0:24: users[1].plan: has no value",
		"f0:25: users[1].ends_at: want a time like 2027-01-31 (midnight UTC) or 2027-01-31T12:00:00Z",
		"f0:26: users[1].limits.max_devices: want 1 to 1000",
		"f0:26: users[1].limits.upload: unknown key: want max_devices, max_sessions, max_streams, max_udp, quota_bytes, quota_period, regions, speed_down_bps or speed_up_bps",
		"f0:26: users[1].limits.regions: want a list of texts",
		`f0:27: users[2]: the user "anna" is given twice, first at f0:23`,
		"f0:28: teams: unknown key: want regions, plans, outline_servers or users",
		"f1:1: regions: want a list",
		"f1:4: plans[0]: want keys with values",
		"f2: line 2: did not find expected key",
	}
	got := problems(w.Err())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
	if strings.Contains(w.Err().Error(), "planted") {
		t.Error("a message repeats a secret")
	}
	if _, is := errors.AsType[*desired.MistakeError](w.Err()); !is {
		t.Error("a mistake is no MistakeError")
	}
}

func is(kind desired.Kind, id, name, text string) desired.Is {
	return desired.Is{Kind: kind, ID: id, Name: name, JSON: json.RawMessage(text)}
}

// lines shows changes in short.
func lines(changes []desired.Change) []string {
	var shown []string
	for _, c := range changes {
		line := fmt.Sprintf("%s %s %s", c.Action, c.Kind, c.Name)
		for _, f := range c.Fields {
			line += fmt.Sprintf(" %s:%s>%s", f.Name, desired.Readable(f.Name, f.Before), desired.Readable(f.Name, f.After))
		}
		if c.Subscription != nil {
			line += fmt.Sprintf(" subscription %+v", *c.Subscription)
		}
		shown = append(shown, line)
	}
	return shown
}

func TestOnlyWhatDiffersChanges(t *testing.T) {
	ends := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	there := desired.There{
		Objects: []desired.Is{
			is(desired.Region, "r1", "eu", `{"code":"eu","name":"Europe"}`),
			is(desired.Region, "r2", "old", `{"code":"old","name":"old"}`),
			is(desired.Plan, "p1", "basic", `{"name":"basic","max_devices":5,"quota_bytes":null,"speed_up_bps":20000000,"regions":["eu"],"duration_days":30,"quota_warnings":[80,95]}`),
			is(desired.Plan, "p2", "same", `{"name":"same","max_devices":5,"quota_bytes":1048576,"regions":[],"duration_days":null}`),
			is(desired.OutlineServer, "o1", "eu-1", `{"name":"eu-1","region":"eu","weight":100,"managed":true}`),
			is(desired.User, "u1", "anna", `{"name":"anna","note":"","disabled":false,"limits":{"max_devices":3,"quota_bytes":null,"speed_up_bps":0,"regions":["eu"]}}`),
			is(desired.User, "u2", "bob", `{"name":"bob","note":"x","disabled":false,"limits":{"max_devices":null,"regions":null}}`),
		},
		Subscriptions: map[string][]desired.Subscription{
			"u1": {{ID: "s1", Plan: "basic", EndsAt: &ends}},
			"u2": {{ID: "s2", Plan: "basic"}},
		},
	}
	const file = `
regions: [{code: eu, name: Europe}, {code: us}]
plans:
- {name: basic, max_devices: 5, quota_bytes: 100GiB, speed_up_bps: 0, regions: [us, eu], duration_days: null, quota_warnings: [95, 80]}
- {name: same, max_devices: 5, quota_bytes: 1MiB, regions: [], duration_days: none}
- {name: new, quota_bytes: 1GB}
outline_servers:
- {name: eu-1, region: eu, weight: 0}
users:
- {name: anna, plan: basic, ends_at: 2027-01-31, limits: {max_devices: 3, speed_up_bps: none, regions: [eu]}}
- {name: bob, note: "x", plan: new, ends_at: 2027-01-31T01:00:00+01:00, limits: {max_devices: plan, regions: []}}
- {name: cid, disabled: true, plan: same, limits: {quota_bytes: plan, max_udp: 0}}
`
	want := []string{
		"unchanged region eu", "create region us",
		"update plan basic duration_days:30>none quota_bytes:none>100GiB regions:eu>eu,us speed_up_bps:20M>none",
		"unchanged plan same", "create plan new quota_bytes:none>1GB",
		"update outline_server eu-1 weight:100>0",
		"unchanged user anna",
		"update user bob limits.regions:plan>[] plan:basic>new ends_at:none>2027-01-31T00:00:00Z subscription {ID:s2 Plan:new EndsAt:2027-01-31T00:00:00Z}",
		"create user cid disabled:none>true limits.max_udp:plan>0 limits.quota_bytes:plan>plan plan:none>same subscription {ID: Plan:same EndsAt:}",
	}
	for _, prune := range []bool{false, true} {
		changes, err := read(t, file).Changes(there, prune)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, lines(changes)); diff != "" {
			t.Errorf("with prune %v (-want +got):\n%s", prune, diff)
		}
		want = append(want, "delete region old")
	}
	// A kind without a list is left alone, an empty list is not.
	changes, err := read(t, "users: []\nregions: [{code: eu}, {code: old}]").Changes(there, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"unchanged region eu", "unchanged region old", "delete user anna", "delete user bob"}, lines(changes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsNamedMustBeThere(t *testing.T) {
	there := desired.There{
		Objects: []desired.Is{
			is(desired.Region, "r1", "eu", `{"code":"eu"}`), is(desired.Plan, "p1", "old", `{"name":"old"}`), is(desired.User, "u1", "anna", `{"limits":{}}`),
		},
		Subscriptions: map[string][]desired.Subscription{"u1": {{ID: "a", Plan: "x"}, {ID: "b", Plan: "y"}}},
	}
	for name, tc := range map[string]struct {
		text  string
		prune bool
		want  []string
	}{
		"all of it": {text: "plans: [{name: new, regions: [eu]}]\nusers: [{name: bob, plan: old}, {name: cid, plan: new, limits: {regions: [eu]}}]"},
		"nothing of it": {
			text: "plans:\n- name: new\n  regions: [mars]\nusers:\n- name: bob\n  plan: none\n  limits:\n    regions: [venus]\noutline_servers:\n- name: o\n",
			want: []string{
				`f0:3: new.regions: there is no region "mars", neither in the service nor here`,
				`f0:8: bob.limits.regions: there is no region "venus", neither in the service nor here`,
				`f0:6: bob.plan: there is no plan "none", neither in the service nor here`,
				"f0:10: o: a new Outline server needs access_key_file or access_key_env", "f0:10: o: a new Outline server needs region",
			},
		},
		"what would be deleted": {
			text: "plans: []\nusers:\n- {name: bob, plan: old}", prune: true,
			want: []string{`f0:3: bob.plan: there is no plan "old", neither in the service nor here`},
		},
		"one of two subscriptions": {
			text: "users: [{name: anna, plan: old}]",
			want: []string{`f0:1: anna.plan: the user has 2 subscriptions, none of them to "old": which is to become that cannot be said here; move or delete them by hand`},
		},
	} {
		_, err := read(t, tc.text).Changes(there, tc.prune)
		if diff := cmp.Diff(tc.want, problems(err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestJSONIsReadLikeYAML(t *testing.T) {
	for _, text := range []string{
		`{"plans": [{"name": "a", "quota_bytes": 1048576, "regions": []}]}`,
		"plans:\n- name: a\n  quota_bytes: 1MiB\n  regions: []\n---\n---\n",
	} {
		w := read(t, text)
		if err := w.Err(); err != nil {
			t.Fatal(err)
		}
		if len(w.Objects) != 1 || w.Objects[0].Fields["quota_bytes"] != int64(1<<20) {
			t.Errorf("%s: %+v", text, w.Objects)
		}
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	w := new(desired.Wanted)
	if err := w.Read("f", strings.NewReader(strings.Repeat("#", desired.MaxSize+1))); err == nil {
		t.Error("a file without end is read")
	}
	w = read(t, "users:\n"+strings.Repeat("- {name: x}\n", desired.MaxObjects+2))
	if got := problems(w.Err()); len(got) != 101 || !strings.HasPrefix(got[100], "and ") {
		t.Errorf("%d mistakes are told, the last is %q", len(got), got[len(got)-1])
	}
	if len(w.Objects) != desired.MaxObjects {
		t.Errorf("%d objects", len(w.Objects))
	}
}

func FuzzRead(f *testing.F) {
	f.Add("regions: [{code: eu}]\n---\nusers: [{name: a, limits: {regions: [eu], speed_up_bps: none}}]")
	f.Add("a: &a [*a]")
	f.Add("plans: [{name: *x}]")
	f.Add("users:\n- &u {name: a}\n- *u")
	f.Fuzz(func(_ *testing.T, text string) {
		w := new(desired.Wanted)
		if err := w.Read("f", strings.NewReader(text)); err != nil {
			return
		}
		_, _ = w.Changes(desired.There{}, true)
	})
}

// The bounds are the API's: what is taken here must not be refused there.
func TestFieldsAndBoundsAreTheAPIs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Minimum   *float64 `json:"minimum"`
		Maximum   *float64 `json:"maximum"`
		MinLength *int64   `json:"minLength"`
		MaxLength *int64   `json:"maxLength"`
		MaxItems  *int64   `json:"maxItems"`
		Enum      []string `json:"enum"`
	}
	var document struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]property `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for schema, fields := range desired.Schemas() {
		for name, f := range fields {
			p, there := document.Components.Schemas[schema].Properties[name]
			if !there {
				t.Errorf("%s has no %s", schema, name)
				continue
			}
			seen++
			differs := func(what string, ours int64, theirs float64) {
				if float64(ours) != theirs {
					t.Errorf("%s.%s: %s is %d, the API's %g", schema, name, what, ours, theirs)
				}
			}
			if p.Minimum != nil {
				differs("the least", f.Min, *p.Minimum)
			}
			if p.Maximum != nil {
				differs("the most", f.Max, *p.Maximum)
			}
			if p.MinLength != nil {
				differs("the least length", f.Min, float64(*p.MinLength))
			}
			if p.MaxLength != nil {
				differs("the greatest length", f.Max, float64(*p.MaxLength))
			}
			if p.MaxItems != nil {
				differs("the longest list", f.Items, float64(*p.MaxItems))
			}
			if len(p.Enum) > 0 {
				if diff := cmp.Diff(p.Enum, f.Words); diff != "" {
					t.Errorf("%s.%s (-API +here):\n%s", schema, name, diff)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d fields were looked at", seen)
	}
}
