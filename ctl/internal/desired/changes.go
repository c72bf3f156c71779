package desired

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Action is what is done to an object.
type Action string

// The actions.
const (
	Create    Action = "create"
	Update    Action = "update"
	Delete    Action = "delete"
	Unchanged Action = "unchanged"
)

// Is is an object that there is.
type Is struct {
	Kind Kind
	ID   string
	Name string
	JSON json.RawMessage // as the service shows it
}

// Subscription is one of a user's that has not ended.
type Subscription struct {
	ID     string
	Plan   string // its name
	EndsAt *time.Time
}

// There is what the service has.
type There struct {
	Objects []Is
	// Subscriptions are those that have not ended, by the ids of their users. A user whom
	// no file wants a plan for need not be among them.
	Subscriptions map[string][]Subscription
}

// Field is a value that becomes another.
type Field struct {
	Name   string `json:"name"`
	Before any    `json:"before"`
	After  any    `json:"after"`
}

// Change is what has to be done to one object.
type Change struct {
	Action Action  `json:"action"`
	Kind   Kind    `json:"kind"`
	Name   string  `json:"name"`
	At     string  `json:"at,omitempty"` // where it is wanted
	ID     string  `json:"id,omitempty"` // of what there is
	Fields []Field `json:"fields,omitempty"`

	// Object is what is wanted; nil of Delete.
	Object *Object `json:"-"`
	// Set and Own are what to say to the service: fields, and a user's own limits.
	Set map[string]any `json:"-"`
	Own map[string]any `json:"-"`
	// Subscription is what the user's is to become; nil: nothing.
	Subscription *SubscriptionChange `json:"-"`
}

// SubscriptionChange is what is to become of a user's subscription.
type SubscriptionChange struct {
	ID     string // empty: a new one
	Plan   string // its name; empty: as it is
	EndsAt string // empty: as it is
}

// Changes says what has to be done, in an order in which it can be. With prune, objects
// go that no file has, of the kinds of which there is a list.
func (w *Wanted) Changes(there There, prune bool) ([]Change, error) {
	is := make(map[Kind]map[string]Is)
	for _, o := range there.Objects {
		if is[o.Kind] == nil {
			is[o.Kind] = make(map[string]Is)
		}
		is[o.Kind][o.Name] = o
	}
	w.references(is, prune)
	var changes []Change
	for _, kind := range Kinds() {
		for i := range w.Objects {
			if o := &w.Objects[i]; o.Kind == kind {
				present, known := is[kind][o.Name]
				change, err := w.change(o, present, known, there)
				if err != nil {
					return nil, err
				}
				changes = append(changes, change)
			}
		}
	}
	if prune {
		for _, kind := range slices.Backward(Kinds()) {
			for _, name := range slices.Sorted(maps.Keys(is[kind])) {
				if _, wanted := w.seen[kind][name]; w.Said[kind] && !wanted {
					changes = append(changes, Change{Action: Delete, Kind: kind, Name: name, ID: is[kind][name].ID})
				}
			}
		}
	}
	return changes, w.Err()
}

// references looks for names of things that are neither there nor wanted.
func (w *Wanted) references(is map[Kind]map[string]Is, prune bool) {
	exists := func(kind Kind, name string) bool {
		_, wanted := w.seen[kind][name]
		_, there := is[kind][name]
		return wanted || there && (!prune || !w.Said[kind])
	}
	for _, o := range w.Objects {
		need := func(kind Kind, key string, names ...string) {
			for _, name := range names {
				if name != "" && !exists(kind, name) {
					file, _, _ := cutLast(o.At)
					w.problem(fmt.Sprintf("%s:%d", file, o.lines[key]), o.Name+"."+key, "there is no %s %q, neither in the service nor here", kind.Words(), name)
				}
			}
		}
		for key, fields := range map[string]map[string]any{"regions": o.Fields, "limits.regions": o.Own} {
			if names, ok := fields["regions"].([]string); ok {
				need(Region, key, names...)
			}
		}
		if region, ok := o.Fields["region"].(string); ok {
			need(Region, "region", region)
		}
		need(Plan, "plan", o.Plan)
		if _, there := is[o.Kind][o.Name]; o.Kind == OutlineServer && !there {
			if o.KeyFile == "" && o.KeyVariable == "" {
				w.problem(o.At, o.Name, "a new Outline server needs access_key_file or access_key_env")
			}
			if o.Fields["region"] == nil {
				w.problem(o.At, o.Name, "a new Outline server needs region")
			}
		}
	}
}

func cutLast(at string) (file, line string, ok bool) {
	i := strings.LastIndexByte(at, ':')
	if i < 0 {
		return at, "", false
	}
	return at[:i], at[i+1:], true
}

func (w *Wanted) change(o *Object, present Is, known bool, there There) (Change, error) {
	c := Change{Action: Create, Kind: o.Kind, Name: o.Name, At: o.At, Object: o, Set: map[string]any{}, Own: map[string]any{}}
	if !known {
		for _, name := range slices.Sorted(maps.Keys(o.Fields)) {
			c.set(o.Kind, name, nil, o.Fields[name])
		}
		for _, name := range slices.Sorted(maps.Keys(o.Own)) {
			c.own(name, nil, o.Own[name])
		}
		if o.Plan != "" {
			c.Subscription = &SubscriptionChange{Plan: o.Plan, EndsAt: o.EndsAt}
			c.Fields = append(c.Fields, Field{"plan", nil, o.Plan})
		}
		return c, nil
	}
	c.Action, c.ID = Update, present.ID
	var shown struct {
		fields map[string]json.RawMessage
		Limits map[string]json.RawMessage `json:"limits"`
	}
	if err := json.Unmarshal(present.JSON, &shown); err != nil {
		return c, fmt.Errorf("the service shows %s %q as something that this version does not understand: %w", o.Kind.Words(), o.Name, err)
	}
	if err := json.Unmarshal(present.JSON, &shown.fields); err != nil {
		return c, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Fields)) {
		before, err := readJSON(fieldsOf[o.Kind][name], shown.fields[name])
		if err != nil {
			return c, fmt.Errorf("%s of %s %q as the service shows it: %w", name, o.Kind.Words(), o.Name, err)
		}
		after := o.Fields[name]
		if fieldsOf[o.Kind][name].nothing && after == int64(0) {
			after = nil // which the service shows
		}
		if !reflect.DeepEqual(before, after) {
			c.set(o.Kind, name, before, after)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Own)) {
		before, err := readJSON(limitFields[name], shown.Limits[name])
		if err != nil {
			return c, fmt.Errorf("limits.%s of user %q as the service shows it: %w", name, o.Name, err)
		}
		if !reflect.DeepEqual(before, o.Own[name]) {
			c.own(name, before, o.Own[name])
		}
	}
	w.subscription(&c, o, there.Subscriptions[present.ID])
	if len(c.Fields) == 0 {
		c.Action = Unchanged
	}
	return c, nil
}

// set notes that a field is to become another. A plan's nothing is said as 0.
func (c *Change) set(kind Kind, name string, before, after any) {
	c.Fields = append(c.Fields, Field{name, before, after})
	if after == nil && kind == Plan {
		after = int64(0)
	}
	c.Set[name] = after
}

func (c *Change) own(name string, before, after any) {
	c.Fields = append(c.Fields, Field{"limits." + name, before, after})
	c.Own[name] = after
}

// subscription compares the one that a user is to have with those that have not ended.
func (w *Wanted) subscription(c *Change, o *Object, has []Subscription) {
	if o.Plan == "" {
		return
	}
	at := slices.IndexFunc(has, func(s Subscription) bool { return s.Plan == o.Plan })
	switch {
	case len(has) == 0:
		c.Subscription = &SubscriptionChange{Plan: o.Plan, EndsAt: o.EndsAt}
		c.Fields = append(c.Fields, Field{"plan", nil, o.Plan})
		return
	case at < 0 && len(has) > 1:
		w.problem(o.At, o.Name+".plan", "the user has %d subscriptions, none of them to %q: which is to become that cannot be said here; move or delete them by hand", len(has), o.Plan)
		return
	case at < 0:
		at = 0
		c.Subscription = &SubscriptionChange{ID: has[0].ID, Plan: o.Plan}
		c.Fields = append(c.Fields, Field{"plan", has[0].Plan, o.Plan})
	}
	if o.EndsAt == "" {
		return
	}
	var before any
	if has[at].EndsAt != nil {
		before = has[at].EndsAt.UTC().Format(time.RFC3339Nano)
	}
	if before != o.EndsAt {
		if c.Subscription == nil {
			c.Subscription = &SubscriptionChange{ID: has[at].ID}
		}
		c.Subscription.EndsAt = o.EndsAt
		c.Fields = append(c.Fields, Field{"ends_at", before, o.EndsAt})
	}
}

// readJSON reads a value as the service shows it.
func readJSON(f field, text json.RawMessage) (any, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil //nolint:nilnil // which is a value here
	}
	switch f.takes {
	case number:
		return decoded[int64](text)
	case truth:
		return decoded[bool](text)
	case list:
		words, err := decoded[[]string](text)
		if words, ok := words.([]string); ok {
			slices.Sort(words)
		}
		return words, err
	case numbers:
		all, err := decoded[[]int64](text)
		if all, ok := all.([]int64); ok {
			slices.Sort(all)
		}
		return all, err
	default:
		return decoded[string](text)
	}
}

func decoded[T any](text json.RawMessage) (any, error) {
	var v T
	err := json.Unmarshal(text, &v)
	return v, err
}
