package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// told are the fields of the library's log that are passed on: addresses of
// clients are not.
var told = []string{"identifier", "identifiers", "error", "problem", "attempt", "retrying_in", "challenge_type", "issuer"}

// quiet is a log of the library that goes to log. What happens to certificates we
// tell ourselves, so all of it is for debugging.
func quiet(log *slog.Logger) *zap.Logger { return zap.New(core{log: log}) }

// core writes to a slog.Logger.
type core struct {
	log  *slog.Logger
	with []zapcore.Field
}

func (core) Enabled(zapcore.Level) bool { return true }

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{log: c.log, with: append(append([]zapcore.Field(nil), c.with...), fields...)}
}

func (c core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.log.Enabled(context.Background(), slog.LevelDebug) {
		return checked
	}
	return checked.AddCore(entry, c)
}

func (c core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	encoded := zapcore.NewMapObjectEncoder()
	for _, field := range append(append([]zapcore.Field(nil), c.with...), fields...) {
		field.AddTo(encoded)
	}
	attrs := []any{"said", entry.Message}
	for _, name := range told {
		if value, ok := encoded.Fields[name]; ok {
			attrs = append(attrs, name, value)
		}
	}
	c.log.Debug("acme", attrs...)
	return nil
}

func (core) Sync() error { return nil }
