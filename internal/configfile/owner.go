package configfile

import (
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// owned are the keys at the top of each program's file that no other program has:
// who gives a program another one's file is told so, and not that every line of it
// is unknown. A test of httvps-server holds the list against the programs.
var owned = map[string][]string{
	"httvps-server": {"backend", "gateway"},
	"httvps-backend": {
		"public_url", "admin_url", "service_name", "kek_file", "database", "backup", "replicas", "nats", "gateway_heartbeat", "knock_cookie",
		"knock_rotation", "refusals_per_minute", "webhooks",
	},
	"httvps-gateway": {
		"url", "fronts", "masquerade", "knock", "upstream", "usage", "outage_grace", "require_channel_binding", "drain_timeout", "memory_limit", "pprof_listen", "padding",
	},
}

// owner returns the program that a file is written for, and the key by which that
// is seen, when it is not the one whose settings target takes: the file has keys
// of that program, and none that target alone knows.
func owner(root *yaml.Node, target reflect.Value) (program string, key *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		return "", nil
	}
	ours := settings(target)
	for i := 0; i < len(root.Content); i += 2 {
		name := root.Content[i]
		of := Owner(name.Value)
		_, known := ours[name.Value]
		switch {
		case of != "" && known:
			return "", nil
		case of != "" && program == "":
			program, key = of, name
		}
	}
	return program, key
}

// Owner is the only program that has this key at the top of its file; empty: none
// or several have.
func Owner(key string) string {
	for program, keys := range owned {
		if slices.Contains(keys, key) {
			return program
		}
	}
	return ""
}
