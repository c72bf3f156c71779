package knock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

const (
	keyText  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	keyBytes = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
)

func TestKeySurvivesTheRoundTripAsText(t *testing.T) {
	type profile struct {
		Key Key `json:"key"`
	}
	raw, err := json.Marshal(profile{Key([]byte(keyBytes))})
	if err != nil || string(raw) != `{"key":"`+keyText+`"}` {
		t.Fatalf("as JSON %s, %v", raw, err)
	}
	var back profile
	if err := json.Unmarshal(raw, &back); err != nil || back.Key != Key([]byte(keyBytes)) {
		t.Errorf("came back as %v, %v", back.Key[:], err)
	}
}

func TestKeyHasOneText(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":               "",
		"a character missing":   keyText[:42],
		"a character too many":  keyText + "A",
		"padding":               keyText + "=",
		"padding in its place":  keyText[:42] + "=",
		"spare bits that are 1": keyText[:42] + "9",
		"the standard alphabet": "+" + keyText[1:],
		"a line break":          keyText[:20] + "\n" + keyText[21:],
		"one beside it":         keyText + "\n",
		"one in place of zeros": strings.Repeat("A", 42) + "\n",
		"a space":               " " + keyText[1:],
		"hexadecimal":           fmt.Sprintf("%x", keyBytes),
	} {
		t.Run(name, func(t *testing.T) {
			key := Key{7}
			err := key.UnmarshalText([]byte(text))
			if err == nil {
				t.Fatal("is taken for a key")
			}
			if text != "" && strings.Contains(err.Error(), text) {
				t.Errorf("the error tells the text: %v", err)
			}
			if key != (Key{7}) {
				t.Error("the key has changed")
			}
		})
	}
}

func TestPrintingAKeyShowsNothingOfIt(t *testing.T) {
	key := Key([]byte(keyBytes))
	printed := map[string]string{"String": key.String(), "GoString": key.GoString()}
	for _, value := range []any{key, &key} {
		var logged bytes.Buffer
		record := slog.NewRecord(time.Time{}, slog.LevelInfo, "m", 0)
		record.Add("key", value)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
			logged.Reset()
			if err := handler.Handle(t.Context(), record); err != nil {
				t.Fatal(err)
			}
			printed[fmt.Sprintf("%T of %T", handler, value)] = logged.String()
		}
	}
	for verb := range strings.FieldsSeq("%v %+v %#v %s %q %x %X %#x %d %o %b %c %U %t") {
		printed[verb] = fmt.Sprintf(verb, key)
		printed[verb+" of a struct"] = fmt.Sprintf(verb, struct{ Key Key }{key})
		printed[verb+" of a list"] = fmt.Sprintf(verb, []Key{key})
	}
	for how, text := range printed {
		if !strings.Contains(text, placeholder) {
			t.Errorf("%s: %q has no placeholder", how, text)
		}
		for _, part := range []string{keyText, "18191a", "18191A", "24 25 26", "0x18, 0x19", "30 31 32", "\x1a\x1b"} {
			if strings.Contains(text, part) {
				t.Errorf("%s: %q tells the key", how, text)
			}
		}
	}
}
