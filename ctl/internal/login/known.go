package login

import (
	"errors"
	"path/filepath"
	"slices"
)

const (
	knownName = "known.json"
	// maxKnown is how many logins are remembered; the oldest goes first.
	maxKnown = 50
)

// Known is what services know this machine by. It outlasts the login: who has it is
// not kept waiting when strangers guess an operator's password.
type Known struct {
	path    string
	entries []knownEntry
}

type knownEntry struct {
	API    string `json:"api"`
	Name   string `json:"name"`   // of the operator
	Client string `json:"client"` // the secret
	Pin    string `json:"pin,omitempty"`
}

// LoadKnown reads what is remembered beside the login at path. A file that is missing
// holds nothing; one that others can read, or that is damaged, is an error.
func LoadKnown(path string) (Known, error) {
	known := Known{path: filepath.Join(filepath.Dir(path), knownName)}
	err := read(known.path, &known.entries)
	if errors.Is(err, ErrNone) {
		err = nil
	}
	return known, err
}

// Client returns what a service knows this machine by as an operator's, and the pin of
// its certificate authority; both may be empty.
func (k Known) Client(api, name string) (client, pin string) {
	for _, e := range k.entries {
		if e.API != api {
			continue
		}
		pin = e.Pin
		if e.Name == name {
			return e.Client, e.Pin
		}
	}
	return "", pin
}

// Remember saves that a service knows this machine by client as an operator's, in
// place of what it was before.
func (k *Known) Remember(api, name, client, pin string) error {
	k.entries = slices.DeleteFunc(k.entries, func(e knownEntry) bool { return e.API == api && e.Name == name })
	k.entries = append(k.entries, knownEntry{api, name, client, pin})
	k.entries = k.entries[max(0, len(k.entries)-maxKnown):]
	draft, err := Prepare(k.path)
	if err != nil {
		return err
	}
	return draft.save(k.entries)
}
