package nodes

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	keyFile   = "gateway.key"
	stateFile = "gateway.json"
	maxState  = 64 << 10 // bytes of either file
	pemType   = "PRIVATE KEY"
)

// ErrNotJoined says that the data directory holds no membership.
var ErrNotJoined = errors.New("this gateway has not joined a service")

// State is a gateway's membership. It holds no secret.
type State struct {
	GatewayID string `json:"gateway_id"`
	API       string `json:"api"`           // base URL of the control plane
	Pin       string `json:"pin,omitempty"` // of its certificate authority; empty: the public ones
	ServiceID string `json:"service_id"`
	Issuer    string `json:"issuer"`
	Region    string `json:"region"`
}

func (s State) validate() error {
	if _, err := uuid.Parse(s.GatewayID); err != nil {
		return errors.New("gateway_id is not an id")
	}
	api, err := url.Parse(s.API)
	if err != nil || api.Scheme != "https" || api.Hostname() == "" {
		return errors.New("api is not an https URL")
	}
	if s.Pin != "" {
		if _, err := tlspin.Parse(s.Pin); err != nil {
			return errors.New("pin is not a pin")
		}
	}
	if s.ServiceID == "" || s.Issuer == "" {
		return errors.New("service_id and issuer are needed")
	}
	return nil
}

// LoadState reads the membership and the key that [Join] left in dir. The
// error is [ErrNotJoined] when there is none.
func LoadState(dir string) (State, ed25519.PrivateKey, error) {
	path := filepath.Join(dir, stateFile)
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil, fmt.Errorf("%w: there is no %s", ErrNotJoined, path)
	}
	if err != nil {
		return State{}, nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var state State
	if err := decoder.Decode(&state); err != nil {
		return State{}, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if err := state.validate(); err != nil {
		return State{}, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	key, err := loadKey(dir)
	if err != nil {
		return State{}, nil, err
	}
	return state, key, nil
}

func saveState(dir string, state State) error {
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", stateFile, err)
	}
	return writeFile(dir, stateFile, append(text, '\n'))
}

func loadKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%s is damaged: want one PEM block %q", path, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than Ed25519", path)
	}
	return key, nil
}

// openKey returns dir's key, which it makes the first time. Joining again
// after a lost answer must use the same key.
func openKey(dir string) (ed25519.PrivateKey, error) {
	key, err := loadKey(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key: %w", err)
	}
	if err := writeFile(dir, keyFile, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return nil, err
	}
	return key, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which directory
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxState+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxState {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxState)
	}
	return text, nil
}

// writeFile replaces dir/name, readable by its owner only, so that a crash
// leaves the old file or the new one.
func writeFile(dir, name string, text []byte) error {
	file, err := os.CreateTemp(dir, name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone already when all went well
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator says which directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
