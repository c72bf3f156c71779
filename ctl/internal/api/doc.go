// Package api is the admin API as an operator's command sees it: one method
// per thing that can be asked, typed errors for every way an answer can be no,
// and a client that is careful with the token it carries.
//
// The token leaves the process only inside an Authorization header, only to
// the host the client was made for, and only over TLS that was verified (or
// over plain HTTP that never leaves this machine). No error of this package
// contains it.
package api
