package httvps_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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

// A port of this machine leads to one target at the far end, as ssh -L has it.
func ExampleClient_DialContext() {
	link, stop := exampleService()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := exampleClient(ctx, link)
	if err != nil {
		fmt.Println(err)
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = client.Run(ctx) })

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = listener.Close() }()
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = near.Close() }()
				far, err := client.DialContext(ctx, "tcp", "intranet.test:80")
				if err != nil {
					return
				}
				defer func() { _ = far.Close() }()
				var up sync.WaitGroup
				up.Go(func() {
					_, _ = io.Copy(far, near)
					_ = far.(httvps.Conn).CloseWrite() // the other direction goes on
				})
				_, _ = io.Copy(near, far)
				_ = near.Close()
				up.Wait()
			})
		}
	})

	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(conn)
	_, page, _ := strings.Cut(string(answer), "\r\n\r\n")
	fmt.Println(page, err)
	// Output: hello through the tunnel <nil>
}

// A program that cannot connect tells its user why.
func ExampleDiagnose() {
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
	httvps.Diagnose(context.Background(), httvps.DiagnoseOptions{Store: store}, func(f httvps.Finding) {
		fmt.Println(f.Step, f.Err)
	})
	// Output:
	// profile <nil>
	// tcp <nil>
	// tls <nil>
	// clock <nil>
	// token <nil>
	// tcp <nil>
	// tls <nil>
	// knock <nil>
	// session <nil>
}

// exampleClient enrols a device and returns its client.
func exampleClient(ctx context.Context, link string) (*httvps.Client, error) {
	invitation, err := httvps.ParseInvitation(link)
	if err != nil {
		return nil, err
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(ctx, invitation, httvps.EnrollOptions{Store: store}); err != nil {
		return nil, err
	}
	return httvps.NewClient(httvps.Config{Store: store})
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
