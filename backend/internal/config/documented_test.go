package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// Every setting has its row in the document that tells operators of them.
func TestEverySettingIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/02-control-plane-api.md")
	if err != nil {
		t.Fatal(err)
	}
	var settings func(of reflect.Type, prefix string) []string
	settings = func(of reflect.Type, prefix string) []string {
		var names []string
		for field := range of.Fields() {
			name := field.Tag.Get("yaml")
			switch {
			case name == "" || name == "-":
			case field.Type.Kind() == reflect.Struct:
				names = append(names, settings(field.Type, prefix+name+".")...)
			default:
				names = append(names, prefix+name)
			}
		}
		return names
	}
	names := settings(reflect.TypeFor[Config](), "")
	if len(names) < 15 {
		t.Errorf("only %d settings are found: %v", len(names), names)
	}
	for _, name := range append(names, SecretVariables()[0]) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s is not in the document", name)
		}
	}
}
