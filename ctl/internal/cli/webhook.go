package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var findWebhook = byID("webhook", "webhook list", isUUID)

var webhooks = kind[api.Webhook]{
	name: "webhook", arg: "ID", things: (*api.Client).Webhooks, find: findWebhook,
	columns: []column[api.Webhook]{
		{"ID", func(w api.Webhook) string { return w.ID }},
		{"STATUS", webhookStatus},
		{"PENDING", func(w api.Webhook) string { return count(w.Pending) }},
		{"DEAD", func(w api.Webhook) string { return count(w.Dead) }},
		{"EVENTS", func(w api.Webhook) string {
			if len(w.Events) == 0 {
				return "all"
			}
			return strings.Join(w.Events, " ")
		}},
		{"URL", func(w api.Webhook) string { return w.URL }},
		{"DESCRIPTION", func(w api.Webhook) string { return w.Description }},
	},
	details: []column[api.Webhook]{
		{"SUCCEEDED", func(w api.Webhook) string { return atOr(w.SucceededAt, "never") }},
		{"FAILING", func(w api.Webhook) string { return atOr(w.FailingSince, "no") }},
		{"DISABLED", func(w api.Webhook) string { return atOr(w.DisabledAt, "no") }},
		{"SECRETS", func(w api.Webhook) string {
			var texts []string
			for _, s := range w.Secrets {
				text := fmt.Sprintf("%d, of %s", s.Generation, at(s.CreatedAt))
				if s.EndsAt != nil {
					text += ", until " + at(*s.EndsAt)
				}
				texts = append(texts, text)
			}
			return strings.Join(texts, "; ")
		}},
		{"CREATED", func(w api.Webhook) string { return at(w.CreatedAt) }},
	},
}

// webhookStatus says of one that is disabled why.
func webhookStatus(w api.Webhook) string {
	if w.DisabledReason != "" {
		return w.Status + ": " + w.DisabledReason
	}
	return w.Status
}

var deliveries = []column[api.Delivery]{
	{"ID", func(d api.Delivery) string { return d.ID }},
	{"TYPE", func(d api.Delivery) string { return d.Type }},
	{"STATE", func(d api.Delivery) string { return d.State }},
	{"ATTEMPTS", func(d api.Delivery) string { return count(d.Attempts) }},
	{"RESULT", deliveryResult},
	{"NEXT", func(d api.Delivery) string { return atOr(d.NextAt, "") }},
	{"CREATED", func(d api.Delivery) string { return at(d.CreatedAt) }},
	{"OBJECT", func(d api.Delivery) string { return d.ObjectID }},
}

// deliveryResult is what came of the last attempt.
func deliveryResult(d api.Delivery) string {
	switch {
	case d.TriedAt == nil:
		return ""
	case d.Status != 0:
		return count(d.Status)
	default:
		return d.Failure
	}
}

func (a *app) webhookCommand() *cobra.Command {
	return a.noun("webhook", "Who is told of what happens, by signed messages",
		a.webhookCreate(), listCommand(a, webhooks), showCommand(a, webhooks), a.webhookUpdate(),
		a.webhookSwitch("disable", "Send nothing to a webhook; what waits is kept, what happens meanwhile is not told", true),
		a.webhookSwitch("enable", "Send to a webhook again", false),
		deleteCommand(a, webhooks, " with the messages that wait for it"),
		a.webhookRotate(), a.webhookTest(), a.webhookDeliveries(), a.webhookRedeliver())
}

// webhookFlags are those that create and update share.
type webhookFlags struct {
	url, description string
	events           []string
}

func (w *webhookFlags) add(cmd *cobra.Command, a *app) func(context.Context) (map[string]any, error) {
	flags := cmd.Flags()
	flags.StringVar(&w.url, "url", "", "where messages are sent to: https `URL`, or - to read it from standard input, for one that has a secret")
	flags.StringVar(&w.description, "description", "", "any `TEXT`")
	flags.StringSliceVar(&w.events, "events", nil, "`TYPES` with commas between them, such as user.expired,gateway.down; all: every type (default: all)")
	return func(ctx context.Context) (map[string]any, error) {
		if w.url == "-" {
			text, err := a.readSecret(ctx, "URL: ")
			if err != nil {
				return nil, err
			}
			w.url = strings.TrimSpace(text)
		}
		events := w.events
		if slices.Equal(events, []string{"all"}) {
			events = []string{}
		}
		return changed(cmd, map[string]any{"url": w.url, "description": w.description, "events": events}), nil
	}
}

func (a *app) webhookCreate() *cobra.Command {
	var flags webhookFlags
	cmd := &cobra.Command{
		Use: "create --url URL", Short: "Have somebody told of what happens", Args: exactly(0), PreRunE: needs("url"),
		Long: `Have somebody told of what happens.

The secret that messages are signed with is printed once: whsec_…, as Standard
Webhooks has it. Give it to the receiver, who verifies each message with it, and
accepts a webhook-id once. Types of messages:

  user.created user.disabled user.enabled user.removed user.expired
  user.quota_warning user.quota_exceeded device.enrolled device.revoked
  gateway.down gateway.up outline.down outline.up login.failed backup.failed`,
	}
	fields := flags.add(cmd, a)
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		values, err := fields(cmd.Context())
		if err != nil {
			return err
		}
		k, err := key()
		if err != nil {
			return err
		}
		made, err := c.CreateWebhook(cmd.Context(), values, k)
		if err != nil {
			return err
		}
		return printSecret(a, made, "secret", made.Value.Secret,
			"Webhook "+made.Value.ID+". Its secret, for the receiver; try it with: httvpsctl webhook test "+made.Value.ID)
	})
	return cmd
}

func (a *app) webhookUpdate() *cobra.Command {
	var flags webhookFlags
	cmd := &cobra.Command{Use: "update ID", Short: "Change a webhook", Args: exactly(1)}
	fields := flags.add(cmd, a)
	cmd.RunE = updating(a, webhooks, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) { return fields(cmd.Context()) })
	return cmd
}

func (a *app) webhookSwitch(verb, short string, disabled bool) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " ID", Short: short, Args: exactly(1)}
	cmd.RunE = updating(a, webhooks, func(*cobra.Command, *api.Client) (map[string]any, error) {
		return map[string]any{"disabled": disabled}, nil
	})
	return cmd
}

func (a *app) webhookRotate() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "Give a webhook another secret", Args: exactly(1),
		Long: `Give a webhook another secret, which is printed once.

Messages are signed with both, the new one first, until --overlap has passed: give
the receiver the new one within that time. A further rotation ends the oldest at once.`,
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "how long the secret before signs, too: at most 168h; 0s: it may be known to others (default 24h)")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		id, err := findWebhook(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		var given *time.Duration
		if cmd.Flags().Changed("overlap") {
			given = &overlap
		}
		rotated, err := c.RotateWebhook(cmd.Context(), id, given)
		if err != nil {
			return err
		}
		until := "is over"
		if s := rotated.Value.Secrets; len(s) > 1 && s[1].EndsAt != nil {
			until = "signs, too, until " + at(*s[1].EndsAt)
		}
		return printSecret(a, rotated, "secret", rotated.Value.Secret, "The new secret of webhook "+id+"; the one before "+until)
	})
	return cmd
}

// notTaken says why a message was not taken, and what to look at.
func notTaken(d api.Delivery) error {
	if d.State == "pending" {
		return errors.New("nothing has come of the test message yet: look at it with httvpsctl webhook deliveries")
	}
	why, known := map[string]string{
		"status":   fmt.Sprintf("the receiver answered %d, want 2xx", d.Status),
		"redirect": fmt.Sprintf("the receiver answered %d, and redirects are not followed: give the URL that it leads to", d.Status),
		"timeout":  "the receiver did not answer in time",
		"resolve":  "the service finds no address for the host of its URL",
		"connect":  "nobody answers at the address of its URL",
		"tls":      "the receiver's certificate, or its TLS, is not right",
		"address":  "the host of its URL has no public address, and the service's webhooks.allow has no network with it",
	}[d.Failure]
	if !known {
		why = "the receiver hung up, or what it answered is no HTTP"
	}
	return fmt.Errorf("the test message was not taken: %s", why)
}

func (a *app) webhookTest() *cobra.Command {
	wait := 30 * time.Second
	cmd := &cobra.Command{
		Use: "test ID", Short: "Send a webhook a message and say what came of it", Args: exactly(1),
		Long: `Send a webhook a message of the type webhook.test and say what came of it.

It is tried once. The exit code is 1 when it was not taken.`,
	}
	cmd.Flags().DurationVar(&wait, "wait", wait, "how long to wait for what comes of it")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		id, err := findWebhook(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		message, err := c.TestWebhook(cmd.Context(), id)
		if err != nil {
			return err
		}
		if message, err = a.awaitDelivery(cmd.Context(), c, id, message, wait); err != nil {
			return err
		}
		if err := printObject(a, message, deliveries, names{}); err != nil {
			return err
		}
		if message.Value.State != "delivered" {
			return notTaken(message.Value)
		}
		return nil
	})
	return cmd
}

// awaitDelivery looks after a message until it is no more pending, for at most wait.
func (a *app) awaitDelivery(ctx context.Context, c *api.Client, webhook string, message api.Object[api.Delivery], wait time.Duration) (api.Object[api.Delivery], error) {
	const interval = 250 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for waited := time.Duration(0); message.Value.State == "pending" && waited < wait; waited += interval {
		select {
		case <-ctx.Done():
			return message, ctx.Err()
		case <-ticker.C:
		}
		found, there, err := c.Delivery(ctx, webhook, message.Value.ID)
		if err != nil {
			return message, err
		}
		if there {
			message = found
		}
	}
	return message, nil
}

func (a *app) webhookDeliveries() *cobra.Command {
	cmd := &cobra.Command{Use: "deliveries ID", Short: "List messages for a webhook, newest first", Args: exactly(1)}
	page := pageFlags(cmd)
	var state string
	cmd.Flags().StringVar(&state, "state", "", "only those that are `STATE`: pending, delivered or dead")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		query := make(map[string][]string)
		switch state {
		case "":
		case "pending", "delivered", "dead":
			query["state"] = []string{state}
		default:
			return misuse(cmd, "--state is %q, want pending, delivered or dead", state)
		}
		id, err := findWebhook(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return listing(a, cmd, c, c.Deliveries(id), query, *page, deliveries, nil)
	})
	return cmd
}

func (a *app) webhookRedeliver() *cobra.Command {
	var dead bool
	cmd := &cobra.Command{
		Use: "redeliver ID [DELIVERY…]", Short: "Send messages again that were delivered or given up", Args: cobra.MinimumNArgs(1),
		Long: `Send messages again that were delivered or given up.

They keep their webhook-id, so that a receiver who has had one can tell. With --dead
these are all that were given up, the oldest first, in portions of 1,000.`,
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "all that were given up")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		ids := args[1:]
		if dead == (len(ids) > 0) {
			return misuse(cmd, "name deliveries, or give --dead")
		}
		id, err := findWebhook(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		for _, delivery := range ids {
			if !isUUID(delivery) {
				return misuse(cmd, "%q is not a delivery id; see httvpsctl webhook deliveries", delivery)
			}
		}
		total := 0
		for {
			done, err := c.Redeliver(cmd.Context(), id, ids)
			if err != nil {
				return err
			}
			total += done.Value.Redelivered
			const portion = 1000
			if len(ids) > 0 || done.Value.Redelivered < portion {
				break
			}
		}
		if a.json() {
			return a.printJSON(map[string]any{"redelivered": total})
		}
		_, err = fmt.Fprintf(a.Stdout, "messages sent again: %d\n", total)
		return err
	})
	return cmd
}
