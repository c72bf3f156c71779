package httvps_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// dirStore keeps a device in a directory, which has to be its owner's alone.
type dirStore struct {
	dir string
	mu  sync.Mutex // one call at a time
}

// Key makes the key once: a repeated enrolment has to find the same.
func (s *dirStore) Key(context.Context) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	der, err := os.ReadFile(filepath.Join(s.dir, "key"))
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, err
		}
		return key, s.replace("key", der)
	}
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key in the store is of another kind")
	}
	return signer, nil
}

func (s *dirStore) Profile(context.Context) (profile httvps.Profile, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := os.ReadFile(filepath.Join(s.dir, "profile.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return profile, httvps.ErrNotEnrolled
	}
	if err != nil {
		return profile, err
	}
	if err := json.Unmarshal(text, &profile); err != nil {
		return profile, err
	}
	return profile, profile.Validate()
}

func (s *dirStore) SaveProfile(_ context.Context, profile httvps.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(profile)
	if err != nil {
		return err
	}
	return s.replace("profile.json", text)
}

// replace leaves the old file or the new one, whenever the machine stops.
func (s *dirStore) replace(name string, content []byte) error {
	file, err := os.CreateTemp(s.dir, name) // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return os.Rename(file.Name(), filepath.Join(s.dir, name))
}

// A store in files: the device is still enrolled when the program starts again.
func ExampleStore() {
	link, stop := exampleService()
	defer stop()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()

	_, err = (&dirStore{dir: dir}).Profile(ctx)
	fmt.Println(err)
	invitation, err := httvps.ParseInvitation(link)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = httvps.Enroll(ctx, invitation, httvps.EnrollOptions{Store: &dirStore{dir: dir}, Name: "laptop"})
	fmt.Println(err)

	again := &dirStore{dir: dir} // of the next process
	profile, err := again.Profile(ctx)
	fmt.Println(profile.DeviceName, err)
	_, err = httvps.Gateways(ctx, httvps.Config{Store: again})
	fmt.Println(err)
	// Output:
	// this device is not enrolled
	// <nil>
	// laptop <nil>
	// <nil>
}
