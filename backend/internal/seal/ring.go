package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxKeys bounds a ring; a rotation needs two.
	maxKeys = 8
	maxFile = 4096
	// rereadAfter is how soon a file that lacked a key is read again although it
	// looks the same.
	rereadAfter = time.Second
)

var (
	// ErrNoKey says that the file of the keys is missing although it must exist.
	ErrNoKey = errors.New("the key-encryption key is missing")
	// ErrFixed says that the keys do not come from a file, so that nothing can be
	// changed in it.
	ErrFixed = errors.New("the keys do not come from a file: put a new one (kek generate) behind the others, with a comma, " +
		"start all processes with that, and run kek reseal")
)

// Source says where keys come from: one of File and Text is set.
type Source struct {
	// File holds one key to a line, the newest last.
	File string
	// Text holds keys with commas between them, the newest last.
	Text string
	// Name is what messages call Text.
	Name string
	// Make says that a missing file may be made, where nothing has been sealed yet.
	Make bool
}

func (s Source) name() string {
	if s.File != "" {
		return s.File
	}
	return s.Name
}

// Ring holds the keys that a service seals and opens its secrets with. It prints
// as where they come from. A ring from a file follows it: a key that is missed is looked for
// there again. It is safe for concurrent use.
type Ring struct {
	source Source

	mu    sync.Mutex
	keys  []key       // the newest last
	state fs.FileInfo // of the file when it was read last
	read  time.Time
}

// Open returns the keys of a source.
func Open(source Source) (*Ring, error) {
	r := &Ring{source: source}
	err := r.load()
	if errors.Is(err, fs.ErrNotExist) {
		if !source.Make {
			return nil, fmt.Errorf("%w: %s is not there (restore it from the backup that the database is from)", ErrNoKey, source.File)
		}
		if err = writeFile(source.File, NewKey()+"\n", false); err == nil || errors.Is(err, fs.ErrExist) {
			err = r.load() // of two that make it at once, one does
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	return r, nil
}

// load reads the keys. The file is looked at first: what is written while it is
// read is then found to be new.
func (r *Ring) load() error {
	if r.source.File != "" {
		state, err := os.Stat(r.source.File)
		if err != nil {
			return err
		}
		r.state, r.read = state, time.Now()
	}
	keys, err := r.source.keys()
	if err == nil {
		r.keys = keys
	}
	return err
}

// stale reports whether the file may hold something else now.
func (r *Ring) stale() bool {
	if r.source.File == "" {
		return false
	}
	now, err := os.Stat(r.source.File)
	return err == nil && (!os.SameFile(now, r.state) || now.Size() != r.state.Size() || !now.ModTime().Equal(r.state.ModTime())) ||
		time.Since(r.read) > rereadAfter
}

// Check returns what is wrong with keys that are given as text.
func (s Source) Check() error {
	_, err := s.keys()
	return err
}

func (s Source) keys() ([]key, error) {
	if s.File == "" {
		return parse(strings.Split(s.Text, ","), s.Name+": key")
	}
	text, err := readFile(s.File)
	if err != nil {
		return nil, err
	}
	return parse(strings.Split(strings.TrimRight(text, "\r\n"), "\n"), s.File+": line")
}

// parse reads one key from each text. where begins messages, which number them.
func parse(texts []string, where string) ([]key, error) {
	if len(texts) > maxKeys {
		return nil, fmt.Errorf("%s %d is one too many, want at most %d keys", where, maxKeys+1, maxKeys)
	}
	var keys []key
	for i, text := range texts {
		k, err := parseKey(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s %d is no key: %w", where, i+1, err)
		}
		if slices.ContainsFunc(keys, func(other key) bool { return other.id == k.id }) {
			return nil, fmt.Errorf("%s %d is there twice", where, i+1)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Name says where the keys come from.
func (r *Ring) Name() string { return r.source.name() }

// IDs returns the ids of all keys, the newest last.
func (r *Ring) IDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids()
}

func (r *Ring) ids() []string {
	ids := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	return ids
}

// Reveal returns the texts of all keys, the newest last: for a backup, which is
// encrypted itself.
func (r *Ring) Reveal() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	texts := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		texts = append(texts, k.text)
	}
	return texts
}

// Fixed reports whether nothing can be changed about the keys, which do not come
// from a file.
func (r *Ring) Fixed() bool { return r.source.File == "" }

// Exposed reports whether everybody on the machine may read the file.
func (r *Ring) Exposed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state != nil && r.state.Mode().Perm()&0o007 != 0
}

// Newest returns the id of the newest key.
func (r *Ring) Newest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[len(r.keys)-1].id
}

// Has returns an *UnknownKeyError unless a key is in the ring, or in its file now.
func (r *Ring) Has(id string) error {
	_, err := r.find(id)
	return err
}

// find returns a key. One that is missed may have been added to the file since it
// was read.
func (r *Ring) find(id string) (key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for again := false; ; again = true {
		for _, k := range r.keys {
			if k.id == id {
				return k, nil
			}
		}
		if again || !r.stale() {
			return key{}, r.unknown(id)
		}
		if err := r.load(); err != nil {
			return key{}, fmt.Errorf("key %s is needed: %w", id, err)
		}
	}
}

func (r *Ring) unknown(id string) error {
	e := &UnknownKeyError{ID: id, Have: r.ids(), Source: r.Name()}
	if r.source.File != "" {
		if old := oldFile(r.source.File, id); exists(old) {
			e.Old = old
		}
	}
	return e
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Seal encrypts plain with a key of the ring. place says where the result will
// lie, as "table|row|column".
func (r *Ring) Seal(id string, plain []byte, place string) ([]byte, error) {
	k, err := r.find(id)
	if err != nil {
		return nil, err
	}
	return k.seal(plain, place)
}

// Open decrypts what Seal made for the same place. The error is an
// *UnknownKeyError or ErrDamaged.
func (r *Ring) Open(sealed []byte, place string) ([]byte, error) {
	if id := KeyOf(sealed); id != "" {
		k, err := r.find(id)
		if err == nil {
			return k.open(sealed, place)
		}
		if plain, old := r.openOld(sealed, place); old == nil { // its nonce began by chance like an id
			return plain, nil
		}
		return nil, err
	}
	return r.openOld(sealed, place)
}

// openOld opens an envelope that does not say which key sealed it.
func (r *Ring) openOld(sealed []byte, place string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.keys {
		if plain, err := k.aead.Open(nil, nil, sealed, []byte(place)); err == nil {
			return plain, nil
		}
	}
	return nil, fmt.Errorf("%w (%s holds %s)", ErrDamaged, r.Name(), strings.Join(r.ids(), ", "))
}

// Add puts a new key behind all others of the file and returns its id.
func (r *Ring) Add() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.source.File == "" {
		return "", ErrFixed
	}
	if len(r.keys) == maxKeys {
		return "", fmt.Errorf("%s holds %d keys, which are as many as it may: drop those that seal nothing", r.Name(), maxKeys)
	}
	k, err := parseKey(NewKey())
	if err != nil {
		return "", err
	}
	keys := append(slices.Clone(r.keys), k)
	if err := r.write(keys); err != nil {
		return "", err
	}
	return k.id, nil
}

// Retire takes all keys but one out of the file and returns the ids of those that
// went. Before that, each is put into a file of its own beside it, "FILE.ID.old":
// older backups of the database open with it alone.
func (r *Ring) Retire(keep string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kept []key
	var gone []string
	if r.source.File == "" {
		return nil, ErrFixed
	}
	for _, k := range r.keys {
		if k.id == keep {
			kept = append(kept, k)
			continue
		}
		err := writeFile(oldFile(r.source.File, k.id), k.text+"\n", true)
		if err != nil {
			return nil, err
		}
		gone = append(gone, k.id)
	}
	if len(kept) == 0 {
		return nil, r.unknown(keep)
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, r.write(kept)
}

// oldFile is where a key that went from a file is kept.
func oldFile(file, id string) string { return file + "." + id + ".old" }

// write replaces the file.
func (r *Ring) write(keys []key) error {
	var text strings.Builder
	for _, k := range keys {
		text.WriteString(k.text + "\n")
	}
	path, err := filepath.EvalSymlinks(r.source.File) // a link stays one
	if err != nil {
		return err
	}
	if err := writeFile(path, text.String(), true); err != nil {
		return err
	}
	return r.load()
}

func readFile(path string) (string, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxFile {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return string(text), nil
}

// writeFile writes a file for its owner alone so that it is never there half: a
// crash leaves either what was there before or all of it. Unless it may replace,
// a file that is there already stays, and the error is fs.ErrExist.
func writeFile(path, text string, replace bool) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	file, err := os.CreateTemp(dir, name+".*.new") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone after the rename
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if !replace {
		// A link fails where something is; some file systems have none.
		if err := os.Link(file.Name(), path); err == nil || errors.Is(err, fs.ErrExist) {
			return errors.Join(err, syncDir(dir))
		}
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // where the operator's key file is
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// KeyOf is the function of that name.
func (r *Ring) KeyOf(sealed []byte) string { return KeyOf(sealed) }

// String returns where the keys come from, and nothing of them.
func (r *Ring) String() string { return r.Name() }

// GoString is String: %#v shows no key either.
func (r *Ring) GoString() string { return r.Name() }
