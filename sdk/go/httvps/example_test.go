package httvps_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// A device enrols, connects and fetches a page through the tunnel.
func Example() {
	link, stop := exampleService()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Once: redeem the invitation that the operator sent.
	invitation, err := httvps.ParseInvitation(link)
	if err != nil {
		fmt.Println(err)
		return
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(ctx, invitation, httvps.EnrollOptions{Store: store, Name: "laptop"}); err != nil {
		fmt.Println(err)
		return
	}

	// From then on: keep a session up for as long as the program runs.
	client, err := httvps.NewClient(httvps.Config{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	running, disconnect := context.WithCancel(ctx)
	defer disconnect()
	done := make(chan error, 1)
	go func() { done <- client.Run(running) }()

	// The name is resolved at the far end, not here.
	web := &http.Client{Transport: &http.Transport{DialContext: client.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://intranet.test/", http.NoBody)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := web.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	page, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	fmt.Printf("%s, %v\n", page, err)

	disconnect()
	fmt.Println(<-done)
	// Output:
	// hello through the tunnel, <nil>
	// context canceled
}

// What went wrong is told by type, and Explain has a sentence for people.
func ExampleExplain() {
	var err error = &httvps.RefusedError{Code: "subscription_expired"}

	if refused, ok := errors.AsType[*httvps.RefusedError](err); ok {
		fmt.Println(refused)
		fmt.Println(httvps.Explain(refused.Code))
	}
	// Output:
	// refused by the service: subscription_expired
	// The subscription has ended. Renew it, then connect again.
}

// A program that shows its state listens to events.
func ExampleConfig() {
	link, stop := exampleService()
	defer stop()
	invitation, err := httvps.ParseInvitation(link)
	if err != nil {
		fmt.Println(err)
		return
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(context.Background(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	client, err := httvps.NewClient(httvps.Config{
		Store: store,
		OnEvent: func(e httvps.Event) {
			fmt.Println(e.Kind)
			if e.Kind == httvps.Connected {
				cancel() // enough for an example
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = client.Run(ctx)
	// Output:
	// connecting
	// connected
	// disconnected
}

// exampleService starts a service whose tunnels lead to one web server.
func exampleService() (link string, stop func()) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello through the tunnel")
	}))
	service := httvpstest.New(httvpstest.Options{Dial: func(ctx context.Context, _ wire.Addr) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", origin.Listener.Addr().String())
	}})
	return service.Invitation(), func() { service.Close(); origin.Close() }
}
