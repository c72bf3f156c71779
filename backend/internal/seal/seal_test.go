package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, source Source) *Ring {
	t.Helper()
	ring, err := Open(source)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// inDir is a key file that may be made.
func inDir(dir string) Source { return Source{File: filepath.Join(dir, "kek"), Make: true} }

func sealed(t *testing.T, ring *Ring, plain, place string) []byte {
	t.Helper()
	out, err := ring.Seal(ring.Newest(), []byte(plain), place)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOnlyTheSameKeyAndPlaceOpenASecret(t *testing.T) {
	dir := t.TempDir()
	ring := open(t, inDir(dir))
	envelope := sealed(t, ring, "secret", "table|1|field")
	if bytes.Contains(envelope, []byte("secret")) || KeyOf(envelope) != ring.Newest() {
		t.Errorf("the envelope %q is readable, or does not name %s", envelope, ring.Newest())
	}
	again := open(t, inDir(dir))
	if got, err := again.Open(envelope, "table|1|field"); err != nil || string(got) != "secret" {
		t.Errorf("Open = %q, %v", got, err)
	}
	for name, tc := range map[string]struct {
		envelope []byte
		place    string
	}{
		"another row":     {envelope, "table|2|field"},
		"a bit less":      {envelope[:len(envelope)-1], "table|1|field"},
		"a header alone":  {envelope[:headerSize], "table|1|field"},
		"half a header":   {envelope[:headerSize-1], "table|1|field"},
		"without its id":  {envelope[headerSize:], "table|1|field"},
		"nothing":         {nil, "table|1|field"},
		"another content": {flipped(envelope, len(envelope)-1), "table|1|field"},
	} {
		if got, err := again.Open(tc.envelope, tc.place); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrDamaged", name, got, err)
		}
	}
}

func flipped(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

func TestAKeyThatIsMissingIsNamed(t *testing.T) {
	one, other := open(t, inDir(t.TempDir())), open(t, inDir(t.TempDir()))
	envelope := sealed(t, one, "secret", "a|b|c")
	_, err := other.Open(envelope, "a|b|c")
	unknown, ok := errors.AsType[*UnknownKeyError](err)
	if !ok || unknown.ID != one.Newest() || !slices.Equal(unknown.Have, other.IDs()) {
		t.Fatalf("Open = %v, want an UnknownKeyError that names both keys", err)
	}
	for _, part := range []string{one.Newest(), other.Newest(), other.Name(), "restore"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if err := other.Has(one.Newest()); err == nil {
		t.Error("a missing key is there")
	}
	if err := one.Has(one.Newest()); err != nil {
		t.Errorf("Has = %v", err)
	}
	if out, err := other.Seal(one.Newest(), nil, "a|b|c"); err == nil {
		t.Errorf("a missing key seals: %q", out)
	}
}

func TestAnEnvelopeCannotBeMadeToNameAnotherKey(t *testing.T) {
	ring := open(t, Source{Text: NewKey() + "," + NewKey(), Name: "keys"})
	ids := ring.IDs()
	first, err := ring.Seal(ids[0], []byte("secret"), "a|b|c")
	if err != nil {
		t.Fatal(err)
	}
	second := sealed(t, ring, "x", "a|b|c")
	if _, err := ring.Open(append(slices.Clone(second[:headerSize]), first[headerSize:]...), "a|b|c"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open = %v, want ErrDamaged", err)
	}
}

// What was sealed before keys had ids: nonce, ciphertext and tag, bound to the
// place alone.
func TestAnEnvelopeWithoutAnIDOpensWithWhicheverKeyItWasSealedWith(t *testing.T) {
	ring := open(t, Source{Text: NewKey() + "," + NewKey(), Name: "keys"})
	for _, k := range ring.keys {
		old := k.aead.Seal(nil, nil, []byte("secret"), []byte("secrets|a/1|sealed"))
		if id := KeyOf(old); id != "" {
			t.Errorf("KeyOf = %q", id)
		}
		if got, err := ring.Open(old, "secrets|a/1|sealed"); err != nil || string(got) != "secret" {
			t.Errorf("Open = %q, %v", got, err)
		}
		if got, err := ring.Open(old, "secrets|a/2|sealed"); !errors.Is(err, ErrDamaged) {
			t.Errorf("in another place: %q, %v", got, err)
		}
	}
	_, err := open(t, inDir(t.TempDir())).Open(ring.keys[0].aead.Seal(nil, nil, []byte("secret"), []byte("a")), "a")
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "holds") {
		t.Errorf("with another key: %v, want ErrDamaged that says which keys there are", err)
	}
}

func TestTheKeyFileIsTheOwnersOnlyAndAloneInItsDirectory(t *testing.T) {
	dir := t.TempDir()
	ring := open(t, inDir(dir))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "kek" {
		t.Fatalf("directory holds %v, %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 || ring.Exposed() {
		t.Errorf("mode is %v, %v, exposed %v, want 600", info.Mode(), err, ring.Exposed())
	}
	if err := os.Chmod(ring.Name(), 0o644); err != nil {
		t.Fatal(err)
	}
	if !open(t, inDir(dir)).Exposed() {
		t.Error("a file for everybody is not noticed")
	}
}

func TestAKeyIsNotMadeWhereThereMustBeOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kek")
	if _, err := Open(Source{File: file}); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), file) {
		t.Errorf("Open = %v, want ErrNoKey that names the file", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

func TestOfManyWhoMakeTheFileAtOnceAllGetTheSameKey(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	rings := make([]*Ring, 8)
	for i := range rings {
		group.Go(func() { rings[i], _ = Open(inDir(dir)) })
	}
	group.Wait()
	for _, ring := range rings {
		if ring == nil || ring.Newest() != rings[0].Newest() {
			t.Fatalf("rings are %v", rings)
		}
	}
}

func TestWrongKeysAreNamedByTheirNumberAndNotRepeated(t *testing.T) {
	good, other := NewKey(), NewKey()
	unclean := good[:42] + "B" // bits that no key has
	for name, tc := range map[string]struct{ keys, want string }{
		"nothing":            {"", "1 is no key"},
		"too short":          {good[:40], "1 is no key"},
		"too long":           {good + "AAAA", "1 is no key"},
		"bits too many":      {unclean, "1 is no key"},
		"padded":             {good + "=", "1 is no key"},
		"no base64url":       {strings.Repeat("?", 43), "1 is no key"},
		"text":               {good + ",a secret of another kind", "2 is no key"},
		"the same twice":     {good + "," + other + "," + good, "3 is there twice"},
		"an end too many":    {good + ",", "2 is no key"},
		"more than there be": {strings.Repeat(good+",", maxKeys) + good, "at most 8"},
	} {
		file := filepath.Join(t.TempDir(), "kek")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(tc.keys, ",", "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for where, source := range map[string]Source{file: {File: file, Make: true}, "VARIABLE": {Text: tc.keys, Name: "VARIABLE"}} {
			if where == file && name == "an end too many" {
				continue // an empty line at the end is none
			}
			_, err := Open(source)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), where) {
				t.Errorf("%s: Open = %v, want it to say %q and %q", name, err, tc.want, where)
				continue
			}
			for part := range strings.SplitSeq(tc.keys, ",") {
				if part != "" && strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v repeats what it holds", name, err)
				}
			}
			if source.Check() == nil {
				t.Errorf("%s: Check finds nothing", name)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Source{File: file}); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large file: %v", err)
	}
	spaced := open(t, Source{Text: " " + good + " ,\n" + other + "\n", Name: "V"})
	if len(spaced.IDs()) != 2 {
		t.Errorf("with spaces: %v", spaced.IDs())
	}
}

func TestARingPrintsNoKey(t *testing.T) {
	text := NewKey()
	ring := open(t, Source{Text: text, Name: "V"})
	if all := fmt.Sprintf("%v %+v %#v %s", ring, ring, ring, ring); strings.Contains(all, text) {
		t.Errorf("it shows %s", all)
	}
}

func TestARingFollowsItsFile(t *testing.T) {
	dir := t.TempDir()
	running, command := open(t, inDir(dir)), open(t, inDir(dir))
	before := running.Newest()
	added, err := command.Add()
	if err != nil {
		t.Fatal(err)
	}
	if got := command.IDs(); !slices.Equal(got, []string{before, added}) {
		t.Errorf("IDs = %v, want the new key last", got)
	}
	envelope := sealed(t, command, "secret", "a|b|c") // with the new one
	if got, err := running.Open(envelope, "a|b|c"); err != nil || string(got) != "secret" {
		t.Errorf("who runs opens what the new key sealed: %q, %v", got, err)
	}
	if _, err := running.Seal(added, nil, "a|b|c"); err != nil {
		t.Errorf("and seals with it: %v", err)
	}
	gone, err := command.Retire(added)
	if err != nil || !slices.Equal(gone, []string{before}) {
		t.Fatalf("Retire = %v, %v", gone, err)
	}
	if again, err := command.Retire(added); err != nil || len(again) != 0 {
		t.Errorf("Retire again = %v, %v", again, err)
	}
	if _, err := command.Retire("none"); err == nil {
		t.Error("all keys can be dropped")
	}
	after := open(t, inDir(dir))
	if !slices.Equal(after.IDs(), []string{added}) {
		t.Errorf("IDs = %v, want the new key alone", after.IDs())
	}
	err = after.Has(before)
	if err == nil || !strings.Contains(err.Error(), ".old") {
		t.Errorf("Has = %v, want it to say where the dropped key is", err)
	}
	old := open(t, Source{File: oldFile(after.Name(), before)})
	if old.Newest() != before {
		t.Errorf("the dropped key's file holds %s", old.Newest())
	}
}

func TestALinkToTheKeyFileStaysOne(t *testing.T) {
	dir := t.TempDir()
	file := open(t, inDir(dir)).Name()
	link := filepath.Join(t.TempDir(), "kek")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	ring := open(t, Source{File: link})
	if _, err := ring.Add(); err != nil {
		t.Fatal(err)
	}
	if got := open(t, Source{File: file}).IDs(); len(got) != 2 {
		t.Errorf("the file behind the link has %d keys", len(got))
	}
}

func TestOneAtATimeChangesTheFile(t *testing.T) {
	dir := t.TempDir()
	one, other := open(t, inDir(dir)), open(t, inDir(dir))
	unlock, err := one.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Lock(); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("Lock = %v", err)
	}
	if _, err := one.Add(); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = other.Lock(); err != nil {
		t.Fatal(err)
	}
	if len(other.IDs()) != 2 {
		t.Errorf("who locks it has %d keys, want those that are there now", len(other.IDs()))
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestKeysThatComeFromNoFileStayAsTheyAre(t *testing.T) {
	ring := open(t, Source{Text: NewKey(), Name: "V"})
	if _, err := ring.Add(); !errors.Is(err, ErrFixed) || !ring.Fixed() {
		t.Errorf("Add = %v, want ErrFixed", err)
	}
	if _, err := ring.Retire(ring.Newest()); !errors.Is(err, ErrFixed) {
		t.Errorf("Retire = %v, want ErrFixed", err)
	}
	unlock, err := ring.Lock()
	if err != nil || unlock() != nil {
		t.Errorf("Lock = %v", err)
	}
}

func TestARingDoesNotGrowWithoutEnd(t *testing.T) {
	ring := open(t, inDir(t.TempDir()))
	for range maxKeys - 1 {
		if _, err := ring.Add(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ring.Add(); err == nil {
		t.Error("a ninth key is added")
	}
	if len(ring.IDs()) != maxKeys {
		t.Errorf("there are %d keys", len(ring.IDs()))
	}
}
