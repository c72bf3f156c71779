package carrier

import (
	"net/http"
	"strings"
)

// headerTokens splits a comma-separated header, all of its lines.
func headerTokens(h http.Header, name string) []string {
	var tokens []string
	for _, line := range h[name] {
		for token := range strings.SplitSeq(line, ",") {
			tokens = append(tokens, strings.TrimSpace(token))
		}
	}
	return tokens
}

func hasToken(h http.Header, name, want string) bool {
	for _, token := range headerTokens(h, name) {
		if strings.EqualFold(token, want) {
			return true
		}
	}
	return false
}
