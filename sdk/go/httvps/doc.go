// Package httvps is the device's side of HTTVPS: it enrols a device with a
// service, keeps a tunnel to one of the service's gateways, and opens TCP
// connections and exchanges UDP datagrams through it.
//
// # Ideas
//
// A service is run by somebody, its operator. A person gets an [Invitation]
// from the operator, a link that works once. [Enroll] redeems it: the device
// makes an Ed25519 key, registers the public half and is told who it is, the
// [Profile]. Key and profile live in a [Store]; the key never leaves it, all
// that is asked of it is to sign. There is no password and no token on disk.
//
// A [Client] turns key and profile into a session. It proves to the service
// that it holds the key, gets an access token that is good for an hour and for
// this key only, and presents it to a gateway. [Client.Run] does this, renews
// the token well before it ends, and connects again whenever the connection is
// lost, until its context ends or the service says no for good. Where the gateway
// keeps sessions, what is open in one goes on over the next connection, and nothing
// of it is lost; only when that comes too late does it end with [mux.ErrEnded].
//
// [Client.DialContext] has the signature that [net/http.Transport], database
// drivers and most Go programs accept. A name is not resolved on the device: it
// travels to the far end and is resolved there, so that neither the local
// network nor its resolver learns it. With "udp" it keeps datagrams apart, as the
// net package does; [Client.ListenPacket] is for those who have many peers.
//
//	store := httvps.NewMemoryStore() // real programs keep it: the example of Store does, in files
//	invitation, err := httvps.ParseInvitation(link)
//	// …
//	_, err = httvps.Enroll(ctx, invitation, httvps.EnrollOptions{Store: store})
//	// …
//	client, err := httvps.NewClient(httvps.Config{Store: store})
//	// …
//	go func() { done <- client.Run(ctx) }()
//	web := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}}
//
// A transport that is to speak HTTP/2 needs ForceAttemptHTTP2, as with any dialer of
// one's own; its idle connections count among the streams of the session until
// CloseIdleConnections.
//
// What a client may hold in memory is a choice of two, [Config].Memory.
//
// The examples are on the page of this package, and in the files example_test.go and
// example_store_test.go beside its source, for go doc does not show them.
//
// Among several gateways, near ones are tried first; among those that are about as
// near the service's order counts, which knows their load. [Client.Status] says how it
// goes, [Client.NetworkChanged] is for programs that are told of networks and sleep,
// and [Diagnose] finds what a connection lacks.
//
// # Errors
//
// Three types answer the three questions a program has. A [*RefusedError] says
// that the service answered and will not serve this device: trying again does
// not help until somebody changes something. An [*UnreachableError] says that
// nobody answered who could decide; a [*StrangerError] inside says that somebody
// else did. An [*OpenError] says that the tunnel works
// and one connection could not be made through it, with the reason in its Code.
// [Explain] has one sentence for people for every code.
//
// # Trust
//
// Every connection is TLS 1.3. A service with a public certificate is verified
// as browsers do; a service with an authority of its own is verified against
// the pin that came with the invitation. Nothing can switch verification off.
// Proxy settings of the environment are not used and redirects are not
// followed.
package httvps
