package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/sdk/go/httvps"
)

const (
	// unpadded is ours whose gateway wants no padding.
	unpadded  = "unpadded"
	noPadding = "{enabled: false}"

	// morePages are read behind the first one.
	morePages = 20
	// pageTimeout bounds one page.
	pageTimeout = 20 * time.Second
)

// page is what a small page is like: so many connections one after the other, on each of
// which a program and a TLS server say so many bytes in turn, the program first.
var page = struct {
	connections int
	turns       []int
}{12, []int{1800, 4200, 80, 250, 600, 30_000, 500, 12_000, 500, 45_000}}

// pageSpec is what a reader of pages is told.
type pageSpec struct {
	Link  string `json:"link"`  // an invitation
	Pages []int  `json:"pages"` // how many are read, for each of the results
}

// pageResult is what some pages took.
type pageResult struct {
	Wire    int64   `json:"wire"`    // bytes between the device and its gateway, TLS included
	Payload int64   `json:"payload"` // bytes of the pages
	Seconds float64 `json:"seconds"`
}

// paddingMeasurements are about what padding costs.
func paddingMeasurements() []measurement {
	one := func(up bool) measurement {
		name := "padding_down"
		if up {
			name = "padding_up"
		}
		cpu := name + "_cpu"
		return measurement{
			figures:    []figure{{name: name, unit: "MiB/s", over: unpadded}, {name: cpu, unit: "s", over: unpadded}},
			contenders: []string{ours, unpadded},
			rounds:     9,
			run: func(ctx context.Context, e *environment, who string) (values, error) {
				r, v, err := e.bytesLoad(ctx, who, cpu, load.Spec{Kind: load.Streams, Up: up, Streams: 1, Warm: e.short(warm), Duration: e.short(steady)})
				if err != nil {
					return nil, err
				}
				return values{name: r.Speed / mib, cpu: v[cpu]}, nil
			},
		}
	}
	opens := measurement{
		figures:    []figure{{name: "padding_opens", unit: "per s", over: unpadded}, {name: "padding_opens_cpu", unit: "ms", over: unpadded}},
		contenders: []string{ours, unpadded},
		rounds:     7,
		own:        true,
		run: func(ctx context.Context, e *environment, who string) (v values, err error) {
			c, err := e.startHTTVPS(ctx, service.Options{Limits: unlimited, Padding: paddingOf(who)})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, c.stop()) }()
			c = e.here(who, c)
			client, server, err := c.cpu()
			if err != nil {
				return nil, err
			}
			// So few that all of them are padded: of more, most would not be (share).
			r, err := c.load(ctx, load.Spec{Kind: load.Opens, Streams: 8, Duration: e.short(steady), Most: paddedOpens})
			if err != nil {
				return nil, err
			}
			clientAfter, serverAfter, err := c.cpu()
			used := clientAfter - client + serverAfter - server
			return values{"padding_opens": r.Rate, "padding_opens_cpu": used.Seconds() * 1000 / paddedOpens}, err
		},
	}
	pages := measurement{
		figures: []figure{
			{name: "padding_page", unit: "KiB", over: unpadded},
			{name: "padding_page_added", unit: "%"},
			{name: "padding_page_time", unit: "ms", over: unpadded},
			{name: "padding_pages", unit: "KiB", over: unpadded},
			{name: "padding_pages_added", unit: "%"},
			{name: "padding_pages_time", unit: "ms", over: unpadded},
		},
		contenders: []string{ours, unpadded},
		rounds:     5,
		own:        true,
		run: func(ctx context.Context, e *environment, who string) (values, error) {
			results, err := e.readPages(ctx, paddingOf(who))
			if err != nil {
				return nil, err
			}
			v := make(values)
			for i, name := range []string{"padding_page", "padding_pages"} {
				r := results[i]
				v[name], v[name+"_time"] = float64(r.Wire)/1024, 1000*r.Seconds
				v[name+"_added"] = 100 * (float64(r.Wire)/float64(r.Payload) - 1)
			}
			return v, nil
		},
	}
	return []measurement{one(false), one(true), opens, pages}
}

// paddedOpens are streams that get all the padding that the policy has for them before
// there is payload.
const paddedOpens = 60

// paddingOf is a gateway's configuration.
func paddingOf(who string) string {
	if who == unpadded {
		return noPadding
	}
	return ""
}

// readPages has a device of a new service read some pages, and then some more.
func (e *environment) readPages(ctx context.Context, padding string) (_ []pageResult, err error) {
	s, err := e.startService(ctx, service.Options{Padding: padding})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	spec := pageSpec{Pages: []int{1, morePages}}
	if spec.Link, err = s.Invite(ctx); err != nil {
		return nil, err
	}
	p, err := s.Self("pages")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	var answer line
	if err := errors.Join(p.Send(spec), p.Receive(ctx, &answer)); err != nil {
		return nil, err
	}
	if len(answer.Pages) != len(spec.Pages) {
		return nil, errors.New("the pages were not read")
	}
	return answer.Pages, nil
}

// playPages reads pages through a session of its own, from a server of its own.
func playPages(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec pageSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	stores, err := enrollAll(ctx, []string{spec.Link})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	ln, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	running.Go(func() { servePages(ctx, ln) })

	up := make(chan struct{})
	connected := sync.OnceFunc(func() { close(up) })
	var wire atomic.Int64
	client, err := httvps.NewClient(httvps.Config{
		Store: stores[0], Agent: "bench",
		NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &counted{conn, &wire}, nil
		},
		OnEvent: func(e httvps.Event) {
			if e.Kind == httvps.Connected {
				connected()
			}
		},
	})
	if err != nil {
		return err
	}
	running.Go(func() { cancel(client.Run(ctx)) })
	select {
	case <-up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var results []pageResult
	for _, pages := range spec.Pages {
		before, began := wire.Load(), time.Now()
		r := pageResult{}
		for range pages * page.connections {
			n, err := readPart(ctx, client, ln.Addr().String())
			if err != nil {
				return fmt.Errorf("read a page: %w", err)
			}
			r.Payload += n
		}
		r.Wire, r.Seconds = wire.Load()-before, time.Since(began).Seconds()
		results = append(results, r)
	}
	say(line{Pages: results})
	return nil
}

// counted counts what passes through a connection.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// readPart has one of a page's conversations.
func readPart(ctx context.Context, client *httvps.Client, target string) (moved int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	conn, err := client.DialContext(ctx, "tcp", target)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(pageTimeout))
	return converse(conn, 0)
}

// servePages is the other end of the conversations, until ctx ends.
func servePages(ctx context.Context, ln net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var talking sync.WaitGroup
	defer talking.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		talking.Go(func() {
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(pageTimeout))
			_, _ = converse(conn, 1) // the reader sees when something is missing
		})
	}
}

// converse says every other of a conversation's turns, beginning with that number, and
// hears the others.
func converse(conn net.Conn, ours int) (moved int64, err error) {
	for i, n := range page.turns {
		if i%2 == ours {
			_, err = conn.Write(make([]byte, n))
		} else {
			_, err = io.CopyN(io.Discard, conn, int64(n))
		}
		if err != nil {
			return moved, err
		}
		moved += int64(n)
	}
	return moved, nil
}
