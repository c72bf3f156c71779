package desired

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// field is what a key takes. Its bounds are the API's: a test holds them against its
// description.
type field struct {
	takes    takes
	min, max int64    // of numbers, and of the length of texts and of lists of texts
	items    int64    // how many numbers a list may have
	units    []Unit   // of a number that people write with one
	words    []string // that a text is one of; none: any
	nothing  bool     // null is a value: none in a plan
	limit    bool     // it is a user's own: null, or the word plan, is what his plan says
	own      bool     // it is the map of a user's limits
	refused  string   // why it is not taken, whatever it is
}

type takes int

const (
	text takes = iota
	number
	truth
	list    // of texts, in any order
	numbers // likewise
	moment
)

// Unit is what may follow a number.
type Unit struct {
	Suffix string
	Factor int64
}

var (
	bytesUnits = []Unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3},
	}
	bitsUnits = []Unit{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}}
	periods   = []string{"none", "day", "week", "month", "rolling"}
)

// limitFields are those of users' own limits.
var limitFields = map[string]field{
	"max_devices":    {takes: number, min: 1, max: 1000, limit: true},
	"max_sessions":   {takes: number, min: 1, max: 1000, limit: true},
	"max_streams":    {takes: number, min: 1, max: 65535, limit: true},
	"max_udp":        {takes: number, min: 0, max: 65535, limit: true},
	"speed_up_bps":   {takes: number, min: 0, max: 1e12, units: bitsUnits, limit: true},
	"speed_down_bps": {takes: number, min: 0, max: 1e12, units: bitsUnits, limit: true},
	"quota_bytes":    {takes: number, min: 0, max: 1 << 50, units: bytesUnits, limit: true},
	"quota_period":   {takes: text, words: periods, limit: true},
	"regions":        {takes: list, max: 64, limit: true},
}

// inPlans is a limit as plans have it.
func inPlans(name string) field {
	f := limitFields[name]
	f.limit, f.nothing = false, strings.HasSuffix(name, "_bps") || name == "quota_bytes"
	return f
}

var fieldsOf = map[Kind]map[string]field{
	Region: {
		"code": {takes: text, min: 1, max: 32},
		"name": {takes: text, min: 1, max: 100},
	},
	Plan: {
		"name":        {takes: text, min: 1, max: 100},
		"max_devices": inPlans("max_devices"), "max_sessions": inPlans("max_sessions"), "max_streams": inPlans("max_streams"), "max_udp": inPlans("max_udp"),
		"speed_up_bps": inPlans("speed_up_bps"), "speed_down_bps": inPlans("speed_down_bps"), "quota_bytes": inPlans("quota_bytes"),
		"quota_period": inPlans("quota_period"), "regions": inPlans("regions"),
		"duration_days":       {takes: number, min: 0, max: 36500, nothing: true},
		"starts_on_first_use": {takes: truth},
		"time_zone":           {takes: text, max: 64},
		"quota_action":        {takes: text, words: []string{"block", "throttle"}},
		"throttle_bps":        {takes: number, min: 0, max: 1e12, units: bitsUnits, nothing: true},
		"quota_warnings":      {takes: numbers, min: 1, max: 99, items: 8},
		"denied_prefixes":     {takes: list, max: 256},
		"denied_ports":        {takes: numbers, min: 1, max: 65535, items: 256},
		"allowed_ports":       {takes: numbers, min: 1, max: 65535, items: 256},
		"denied_names":        {takes: list, max: 256},
		"allowed_names":       {takes: list, max: 256},
	},
	OutlineServer: {
		"name":            {takes: text, min: 1, max: 100},
		"region":          {takes: text, min: 1, max: 36},
		"weight":          {takes: number, min: 0, max: 1000},
		"priority":        {takes: number, min: 0, max: 1000},
		"capacity":        {takes: number, min: 1, max: 1000000},
		"managed":         {takes: truth},
		"fallback":        {takes: truth},
		"disabled":        {takes: truth},
		"access_key_file": {takes: text, min: 1, max: 4096},
		"access_key_env":  {takes: text, min: 1, max: 200},
		"access_key":      {refused: "a secret does not belong here: name a file with it (access_key_file), or an environment variable (access_key_env)"},
	},
	User: {
		"name":     {takes: text, min: 1, max: 100},
		"note":     {takes: text, max: 1000},
		"disabled": {takes: truth},
		"plan":     {takes: text, min: 1, max: 100},
		"ends_at":  {takes: moment},
		"limits":   {own: true},
	},
}

func keysOf(fields map[string]field) string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(fields)), func(name string) bool { return fields[name].refused != "" })
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// value reads what stands behind a key. Messages do not repeat it: it may be a secret in
// the wrong place.
func (r *reader) value(f field, node *yaml.Node, path string) (any, bool) {
	wrong := func(format string, args ...any) (any, bool) {
		r.problem(r.at(node), path, format, args...)
		return nil, false
	}
	scalar := node.Kind == yaml.ScalarNode
	switch {
	case scalar && (node.ShortTag() == "!!null" || f.nothing && node.Value == "none" || f.limit && node.Value == "plan"):
		if !f.nothing && !f.limit {
			return wrong("has no value")
		}
		return nil, true
	case scalar && f.limit && len(f.units) > 0 && node.Value == "none":
		return int64(0), true // no limit, whatever the plan says
	}
	switch f.takes {
	case number:
		n, ok := quantity(node, f.units)
		if !scalar || !ok {
			return wrong("want a whole number%s", withUnit(f.units))
		}
		if n < f.min || n > f.max {
			return wrong("want %d to %d", f.min, f.max)
		}
		return n, true
	case truth:
		var yes bool
		if !scalar || node.ShortTag() != "!!bool" || node.Decode(&yes) != nil {
			return wrong("want true or false")
		}
		return yes, true
	case list:
		var words []string
		if node.Kind != yaml.SequenceNode || slices.ContainsFunc(node.Content, notText) || node.Decode(&words) != nil {
			return wrong("want a list of texts")
		}
		if int64(len(words)) > f.max {
			return wrong("want at most %d", f.max)
		}
		slices.Sort(words)
		return append([]string{}, slices.Compact(words)...), true
	case numbers:
		var all []int64
		if node.Kind != yaml.SequenceNode || node.Decode(&all) != nil {
			return wrong("want a list of whole numbers")
		}
		if int64(len(all)) > f.items {
			return wrong("want at most %d", f.items)
		}
		for _, n := range all {
			if n < f.min || n > f.max {
				return wrong("want numbers from %d to %d", f.min, f.max)
			}
		}
		slices.Sort(all)
		return append([]int64{}, slices.Compact(all)...), true
	case moment:
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if t, err := time.Parse(layout, node.Value); scalar && err == nil {
				return t.UTC().Format(time.RFC3339Nano), true
			}
		}
		return wrong("want a time like 2027-01-31 (midnight UTC) or 2027-01-31T12:00:00Z")
	default:
		if notText(node) {
			return wrong("want a text; a number or a word like yes goes in quotes")
		}
		if length := int64(len([]rune(node.Value))); f.max > 0 && (length < f.min || length > f.max) {
			return wrong("want %d to %d characters", f.min, f.max)
		}
		if len(f.words) > 0 && !slices.Contains(f.words, node.Value) {
			return wrong("want %s", strings.Join(f.words, ", "))
		}
		return node.Value, true
	}
}

func notText(node *yaml.Node) bool { return node.Kind != yaml.ScalarNode || node.ShortTag() != "!!str" }

func withUnit(units []Unit) string {
	if len(units) == 0 {
		return ""
	}
	return ", with a unit or without, like 20" + units[len(units)/2].Suffix
}

// quantity reads a whole number with one of units behind it, or none.
func quantity(node *yaml.Node, units []Unit) (int64, bool) {
	number, factor := node.Value, int64(1)
	if node.ShortTag() == "!!str" {
		for _, u := range units {
			if rest, ok := strings.CutSuffix(node.Value, u.Suffix); ok {
				number, factor = strings.TrimSpace(rest), u.Factor
				break
			}
		}
		if factor == 1 {
			return 0, false // a text that is a number is not one
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > (1<<62)/factor || n < -(1<<62)/factor {
		return 0, false
	}
	return n * factor, true
}

// Readable writes a value as files do.
func Readable(name string, value any) string {
	limit := strings.HasPrefix(name, "limits.")
	switch v := value.(type) {
	case nil:
		if limit {
			return "plan"
		}
		return "none"
	case int64:
		if limit && v == 0 && fieldUnits(name) != nil {
			return "none"
		}
		return withLargest(v, fieldUnits(name))
	case []string:
		if len(v) == 0 {
			return "[]"
		}
		return strings.Join(v, ",")
	case string:
		if v == "" {
			return `""`
		}
		return v
	default:
		return strings.ReplaceAll(fmt.Sprint(v), " ", ",")
	}
}

func fieldUnits(name string) []Unit {
	switch {
	case strings.HasSuffix(name, "_bytes"):
		return bytesUnits
	case strings.HasSuffix(name, "_bps"):
		return bitsUnits
	default:
		return nil
	}
}

func withLargest(n int64, units []Unit) string {
	for _, u := range units {
		if n != 0 && n%u.Factor == 0 {
			return strconv.FormatInt(n/u.Factor, 10) + u.Suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
