package httvps

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

// StrangerError says that something answers at an address of the service and
// is not the service, or cannot prove that it is: the address or the pin is
// wrong, the service has another certificate than before, or somebody is in
// between. It comes inside an [UnreachableError].
type StrangerError struct {
	// Untrusted says that it did not get as far as a request: the certificate
	// is not one of the service's.
	Untrusted bool

	// Err is what was seen.
	Err error
}

// Error says which of the two it is, and what was seen.
func (e *StrangerError) Error() string {
	if e.Untrusted {
		return "something answers there that cannot be trusted to be the service: " + e.Err.Error()
	}
	return "something answers there that is not this service: " + e.Err.Error()
}

// Unwrap returns what was seen.
func (e *StrangerError) Unwrap() error { return e.Err }

// strange is the error for an answer that the service never gives.
func strange(format string, args ...any) error {
	return &StrangerError{Err: fmt.Errorf(format, args...)}
}

// whoAnswered turns an error of a connection into a *StrangerError when it
// comes from somebody who is not the service.
func whoAnswered(err error) error {
	if refused, ok := errors.AsType[*carrier.UpgradeError](err); ok &&
		refused.Status != 0 && refused.Status < http.StatusInternalServerError {
		return &StrangerError{Err: refused}
	}
	if errors.Is(err, http.ErrSchemeMismatch) || as[tls.RecordHeaderError](err) != nil {
		return &StrangerError{Err: errors.New("it does not speak TLS")}
	}
	for _, untrusted := range []func(error) error{
		as[*tls.CertificateVerificationError],
		as[x509.UnknownAuthorityError],
		as[x509.HostnameError],
		as[x509.CertificateInvalidError],
	} {
		if found := untrusted(err); found != nil {
			return &StrangerError{Untrusted: true, Err: found}
		}
	}
	if errors.Is(err, tlspin.ErrNotSent) {
		return &StrangerError{Untrusted: true, Err: tlspin.ErrNotSent}
	}
	return err
}

// as returns the E in err without what is around it, or nil.
func as[E error](err error) error {
	if found, ok := errors.AsType[E](err); ok {
		return found
	}
	return nil
}
