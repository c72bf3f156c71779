package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often the files are looked at for a renewal.
const certificateCheck = time.Minute

// certificate serves the certificate in two files and notices when they are
// renewed, so that a renewal needs no restart and ends no session.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex // guards the following fields
	current *tls.Certificate
	version [2]time.Time // modification times of the files that current is from
	checked time.Time
}

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	version, err := c.modified()
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if err := c.load(version); err != nil {
		return nil, err
	}
	c.checked = c.now()
	return c, nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		version, err := c.modified()
		if err == nil && version != c.version {
			err = c.load(version)
		}
		if err != nil { // the old one may serve for weeks yet
			c.log.ErrorContext(hello.Context(), "certificate not renewed", "error", err)
		}
	}
	return c.current, nil
}

func (c *certificate) modified() (version [2]time.Time, err error) {
	var problems []error
	for i, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		version[i] = info.ModTime()
	}
	return version, errors.Join(problems...)
}

func (c *certificate) load(version [2]time.Time) error {
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.version = &loaded, version
	return nil
}
