package httpapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAPanicShowsWhereItWasAndNoSecret(t *testing.T) {
	const secret = "PlantedSecret"
	var log bytes.Buffer
	s := &server{log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for name, fault := range map[string]any{"a text": secret, "an error": fmt.Errorf("open %s", secret), "something else": []string{secret}} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/"+secret+"?q="+secret, strings.NewReader(secret))
			r.Header.Set("Authorization", "Bearer "+secret)
			s.wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(fault) })).ServeHTTP(w, r)
			answer := fmt.Sprint(w.Body.String(), w.Header())
			if w.Code != http.StatusInternalServerError || !strings.Contains(answer, codeInternal) || strings.Contains(answer, secret) {
				t.Errorf("answer is %d %s", w.Code, answer)
			}
			if !strings.Contains(log.String(), "panic_test.go") || strings.Contains(log.String(), secret) {
				t.Errorf("want the log to say where it was, without the secret:\n%s", &log)
			}
		})
	}
}
