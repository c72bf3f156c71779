package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// speed is what speedtest -o json prints.
type speed struct {
	LatencyMS *float64 `json:"latency_ms"`
	Download  float64  `json:"download_bits_per_second"`
	Upload    *float64 `json:"upload_bits_per_second"` // null: not asked for
	Direct    *float64 `json:"direct_download_bits_per_second"`
}

const (
	// parallel is how many connections a test uses: one is often held back by the
	// far end.
	parallel = 4

	maxTest = 5 * time.Minute
)

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func newSpeedtest(around surroundings) *cobra.Command {
	var (
		form    format
		upload  string
		compare bool
		lasts   time.Duration
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "speedtest URL",
		Short: "Measure how fast the tunnel is",
		Long: `Measure how fast the tunnel is: download a URL through it over and over, with four
connections at once. A large file on a server near the gateway tells most.

Where httvps connect runs, its tunnel is used; else one is made for the test. What
is transferred counts as traffic of the plan.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, text := range []string{args[0], upload} {
				if u, err := url.Parse(text); text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
					return usagef("%q is no URL that begins with http:// or https://", text)
				}
			}
			if lasts <= 0 || lasts > maxTest {
				return usagef("--time is %v, want more than 0 and at most %v", lasts, maxTest)
			}
			store, err := around.look()
			if err != nil {
				return err
			}
			var result speed
			err = withTunnel(cmd.Context(), store, timeout, func(ctx context.Context, dial dialer, latency *float64) (err error) {
				result.LatencyMS = latency
				if result.Download, err = measure(ctx, dial, http.MethodGet, args[0], lasts); err != nil {
					return fmt.Errorf("download: %w", err)
				}
				if upload != "" {
					rate, err := measure(ctx, dial, http.MethodPost, upload, lasts)
					if err != nil {
						return fmt.Errorf("upload: %w", err)
					}
					result.Upload = &rate
				}
				if compare {
					rate, err := measure(ctx, (&net.Dialer{}).DialContext, http.MethodGet, args[0], lasts)
					if err != nil {
						return fmt.Errorf("without the tunnel: %w", err)
					}
					result.Direct = &rate
				}
				return nil
			})
			if wished(cmd) {
				return nil
			}
			if err != nil {
				return err
			}
			return form.print(cmd.OutOrStdout(), result, func(w io.Writer) {
				table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				defer func() { _ = table.Flush() }()
				line := func(name, value string) { _, _ = fmt.Fprintf(table, "%s\t%s\n", around.speak.Say(name), value) }
				if result.LatencyMS != nil {
					line("latency", fmt.Sprintf("%.1f ms", *result.LatencyMS))
				}
				line("download", megabits(result.Download))
				if result.Upload != nil {
					line("upload", megabits(*result.Upload))
				}
				if result.Direct != nil {
					line("download without the tunnel", megabits(*result.Direct))
				}
			})
		},
	}
	form.define(cmd)
	cmd.Flags().StringVar(&upload, "upload", "", "also send data with POST to this URL")
	cmd.Flags().BoolVar(&compare, "compare", false, "also download without the tunnel")
	cmd.Flags().DurationVar(&lasts, "time", 5*time.Second, "how long each part takes")
	cmd.Flags().DurationVar(&timeout, "connect-timeout", 20*time.Second, "give up when a tunnel is not made by then")
	return cmd
}

// megabits is a rate as people compare it; one that is slow has a smaller unit, so that
// it is not nothing.
func megabits(rate float64) string {
	switch {
	case rate >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", rate/1e6)
	case rate >= 1e3:
		return fmt.Sprintf("%.1f kbit/s", rate/1e3)
	default:
		return fmt.Sprintf("%.0f bit/s", rate)
	}
}

// looked is a store with a directory.
type looked interface {
	httvps.Store
	Path() string
}

// withTunnel has do use the tunnel that is there, or one of its own.
func withTunnel(ctx context.Context, store looked, timeout time.Duration, do func(ctx context.Context, dial dialer, latency *float64) error) error {
	var now status
	err := control.Status(ctx, store.Path(), &now)
	if err == nil {
		return do(ctx, func(ctx context.Context, _, address string) (net.Conn, error) {
			return control.DialThrough(ctx, store.Path(), address)
		}, now.LatencyMS)
	}
	if !errors.Is(err, control.ErrNobody) {
		return err
	}
	up := make(chan struct{})
	t := &tunnel{stdout: io.Discard, stderr: io.Discard, timeout: timeout, whenReady: func() { close(up) }}
	client, err := httvps.NewClient(httvps.Config{Store: store, OnEvent: t.event, Agent: agent()})
	if err != nil {
		return err
	}
	var result error
	err = t.run(ctx, client.Run, part{"speedtest", func(ctx context.Context) error {
		select {
		case <-up:
		case <-ctx.Done():
			return nil
		}
		var latency *float64
		if rtt, err := client.Ping(ctx); err == nil {
			latency = milliseconds(rtt)
		}
		result = do(ctx, client.DialContext, latency)
		return errTested
	}})
	if errors.Is(err, errTested) {
		return result
	}
	return err
}

// errTested ends a tunnel that was made for a test.
var errTested = errors.New("the test is over")

// firstByte is how long a test waits for its first byte.
const firstByte = 30 * time.Second

// measure transfers for a while, counted from the first byte, and returns bits per
// second.
func measure(ctx context.Context, dial dialer, method, target string, lasts time.Duration) (float64, error) {
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: parallel, DisableCompression: true, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 20 * time.Second}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport}
	over, stop := context.WithCancel(ctx)
	defer stop()
	giveUp := time.AfterFunc(firstByte, stop)
	defer giveUp.Stop()
	var (
		wg      sync.WaitGroup
		once    sync.Once
		failure error
	)
	moved := &meter{began: func() { giveUp.Reset(lasts) }}
	for range parallel {
		wg.Go(func() {
			for over.Err() == nil {
				if err := transfer(over, web, method, target, moved); err != nil && over.Err() == nil {
					once.Do(func() { failure = err })
					stop()
					return
				}
			}
		})
	}
	wg.Wait()
	switch bytes, took := moved.total(); {
	case failure != nil:
		return 0, failure
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case bytes == 0:
		return 0, errors.New("nothing came in time")
	default:
		return math.Round(float64(bytes*8) / took.Seconds()), nil
	}
}

// meter counts bytes from the first one on.
type meter struct {
	began func()
	mu    sync.Mutex // guards the following fields
	start time.Time
	bytes int64
}

func (m *meter) add(n int) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.start.IsZero() {
		m.start = time.Now()
		m.began()
	}
	m.bytes += int64(n)
}

func (m *meter) total() (bytes int64, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes, max(time.Since(m.start), time.Millisecond)
}

// maxUpload is how much one request sends.
const maxUpload = 64 << 20

// transfer makes one request and counts.
func transfer(ctx context.Context, web *http.Client, method, target string, moved *meter) error {
	var body io.Reader
	if method == http.MethodPost {
		body = &counted{io.LimitReader(rand.Reader, maxUpload), moved}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // the URL is known
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	from := io.Reader(resp.Body)
	if method == http.MethodGet {
		from = &counted{resp.Body, moved}
	}
	_, err = io.Copy(io.Discard, from)
	return err
}

// counted counts what is read.
type counted struct {
	io.Reader
	meter *meter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.meter.add(n)
	return n, err
}
