package configfile

import (
	"reflect"
	"slices"
)

// Changed returns the keys, sorted, in which two configurations of one type
// differ: dotted paths as in a file, and no values, which may be secrets.
func Changed[C any](before, after C) []string {
	keys := []string{} // in a log, "none" and not "null"
	compare(reflect.ValueOf(before), reflect.ValueOf(after), "", &keys)
	slices.Sort(keys)
	return keys
}

func compare(before, after reflect.Value, path string, keys *[]string) {
	for field, value := range before.Fields() {
		name := keyOf(field)
		if name == "" {
			continue
		}
		key, other := join(path, name), after.FieldByIndex(field.Index)
		switch {
		case value.Kind() == reflect.Struct && !readsText(value.Type()):
			compare(value, other, key, keys)
		case !reflect.DeepEqual(value.Interface(), other.Interface()):
			*keys = append(*keys, key)
		}
	}
}
