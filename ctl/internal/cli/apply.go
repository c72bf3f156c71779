package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/desired"
	"github.com/httvps/httvps/ctl/internal/terminal"
)

// ExitPending is the exit code of a dry run that found something to do.
const ExitPending = 3

// errPending ends a dry run that found something to do.
var errPending = errors.New("a dry run: nothing was done")

// fewUsers is up to how many users are asked for one by one, instead of for all there are.
const fewUsers = 50

func (a *app) applyCommand() *cobra.Command {
	var (
		files             []string
		dryRun, prune, ok bool
	)
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make a service what files say: regions, plans, Outline servers, users", Args: exactly(0),
		Long: `Make a service what files say: regions, plans, Outline servers, users.

The files are YAML or JSON, and may hold several documents:

  regions:
    - {code: eu, name: Europe}
  plans:
    - name: basic
      max_devices: 3
      quota_bytes: 100GiB
      quota_period: month
      regions: [eu]
  outline_servers:
    - name: eu-1
      region: eu
      access_key_file: eu-1.key     # or access_key_env: EU1_KEY
  users:
    - name: anna
      plan: basic                   # a subscription to it, made or moved
      ends_at: 2027-01-31
      limits: {max_devices: 5}      # her own; "plan": what the plan says

Objects are found by their name (regions by their code). What a file does not say stays
as it is, and what is so already is not touched: the same files a second time change
nothing. All mistakes in the files are told before anything is done. Whether an Outline
server has another access key is for the service to see, which does not show it: it is
sent each time, and changes nothing when it is the one that the server has.

Nothing is deleted without --prune, and then only of those kinds of which the files have
a list, after a question.

Exit codes: 0 everything is as the files say; 1 something failed; 2 the command line or a
file has a mistake, and nothing was done; 3 with --dry-run, there is something to do.`,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "file", "f", nil, "read `FILE`, or - for standard input; may be repeated")
	flags.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	flags.BoolVar(&prune, "prune", false, "also delete what the files do not have, of those kinds that they list")
	flags.BoolVar(&ok, "yes", false, "do not ask before deleting")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return misuse(cmd, "%s needs -f FILE", cmd.CommandPath())
		}
		wanted, secrets, err := a.readWanted(files)
		if err != nil {
			return err
		}
		return a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			run := application{app: a, client: c, secrets: secrets, ids: make(map[desired.Kind]map[string]string)}
			there, err := run.look(cmd.Context(), wanted, prune)
			if err != nil {
				return err
			}
			changes, err := wanted.Changes(there, prune)
			if err != nil {
				return &usageError{err: err}
			}
			return run.apply(cmd, changes, dryRun, ok)
		})(cmd, nil)
	}
	return cmd
}

// readWanted reads the files, and the access keys that they name.
func (a *app) readWanted(files []string) (*desired.Wanted, map[string]string, error) {
	wanted, secrets := new(desired.Wanted), make(map[string]string)
	var problems []error
	for _, file := range files {
		name, from, base := file, a.Stdin, "."
		if file == "-" {
			name = "standard input"
		} else {
			f, err := os.Open(file) //nolint:gosec // the operator says which
			if err != nil {
				return nil, nil, &usageError{err: err}
			}
			defer f.Close() //nolint:errcheck // only read
			from, base = f, filepath.Dir(file)
		}
		before := len(wanted.Objects)
		if err := wanted.Read(name, from); err != nil {
			return nil, nil, &usageError{err: err}
		}
		for _, o := range wanted.Objects[before:] {
			if err := a.readSecretOf(o, base, secrets); err != nil {
				problems = append(problems, fmt.Errorf("%s: %s: %w", o.At, o.Name, err))
			}
		}
	}
	if err := errors.Join(append([]error{wanted.Err()}, problems...)...); err != nil {
		return nil, nil, &usageError{err: err}
	}
	return wanted, secrets, nil
}

// readSecretOf reads the access key that an Outline server is to have.
func (a *app) readSecretOf(o desired.Object, base string, secrets map[string]string) error {
	switch {
	case o.KeyVariable != "":
		key := strings.TrimSpace(a.Getenv(o.KeyVariable))
		if key == "" {
			return fmt.Errorf("access_key_env: the environment variable %s is not set", o.KeyVariable)
		}
		secrets[o.Name] = key
	case o.KeyFile != "":
		path := o.KeyFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		key, err := readKeyFile(path)
		if err != nil {
			return fmt.Errorf("access_key_file: %w", errors.Unwrap(err))
		}
		secrets[o.Name] = key
	}
	return nil
}

// application is one run of apply.
type application struct {
	*app
	client  *api.Client
	secrets map[string]string                  // access keys by the names of servers
	ids     map[desired.Kind]map[string]string // by name
	plans   map[string]string                  // names by id
	keys    map[string]int64                   // generations of access keys by the ids of servers
}

// look asks for what there is of the kinds that are wanted and those that they name.
func (r *application) look(ctx context.Context, wanted *desired.Wanted, prune bool) (desired.There, error) {
	there := desired.There{Subscriptions: make(map[string][]desired.Subscription)}
	r.plans, r.keys = make(map[string]string), make(map[string]int64)
	if err := take(ctx, r, &there, desired.Region, r.client.Regions(), nil, func(o api.Region) (string, string) { return o.ID, o.Code }); err != nil {
		return there, err
	}
	if err := take(ctx, r, &there, desired.Plan, r.client.Plans(), nil, func(o api.Plan) (string, string) {
		r.plans[o.ID] = o.Name
		return o.ID, o.Name
	}); err != nil {
		return there, err
	}
	if wanted.Said[desired.OutlineServer] {
		if err := take(ctx, r, &there, desired.OutlineServer, r.client.OutlineServers(), nil, func(o api.OutlineServer) (string, string) {
			r.keys[o.ID] = o.Key.Generation
			return o.ID, o.Name
		}); err != nil {
			return there, err
		}
	}
	var users []desired.Object
	for _, o := range wanted.Objects {
		if o.Kind == desired.User {
			users = append(users, o)
		}
	}
	naming := func(o api.User) (string, string) { return o.ID, o.Name }
	if prune && wanted.Said[desired.User] || len(users) > fewUsers {
		if err := take(ctx, r, &there, desired.User, r.client.Users(), nil, naming); err != nil {
			return there, err
		}
	} else {
		for _, o := range users {
			if err := take(ctx, r, &there, desired.User, r.client.Users(), url.Values{"name": {o.Name}}, naming); err != nil {
				return there, err
			}
		}
	}
	for _, o := range users {
		id := r.ids[desired.User][o.Name]
		if o.Plan == "" || id == "" {
			continue
		}
		page, err := collect(ctx, r.client.Subscriptions(), url.Values{"user_id": {id}}, maxLookup, "")
		if err != nil {
			return there, err
		}
		for _, s := range page.Items {
			if s.Value.Status != "expired" {
				there.Subscriptions[id] = append(there.Subscriptions[id], desired.Subscription{ID: s.Value.ID, Plan: r.plans[s.Value.PlanID], EndsAt: s.Value.EndsAt})
			}
		}
	}
	return there, nil
}

// take adds all objects of a kind to what there is.
func take[T any](
	ctx context.Context, r *application, there *desired.There, kind desired.Kind, things api.Collection[T], filter url.Values, naming func(T) (id, name string),
) error {
	page, err := collect(ctx, things, filter, maxLimit, "")
	if err != nil {
		return err
	}
	if page.Next != "" {
		return fmt.Errorf("the service has more than %d objects of the kind %s: these are too many to compare", maxLimit, kind.Words())
	}
	for _, object := range page.Items {
		id, name := naming(object.Value)
		there.Objects = append(there.Objects, desired.Is{Kind: kind, ID: id, Name: name, JSON: object.JSON})
		r.know(kind, name, id)
	}
	return nil
}

func (r *application) know(kind desired.Kind, name, id string) {
	if r.ids[kind] == nil {
		r.ids[kind] = make(map[string]string)
	}
	r.ids[kind][name] = id
}

// outcome is what became of a change, as it is printed.
type outcome struct {
	desired.Change
	Result string `json:"result"` // done, failed or pending; empty: nothing was to be done
	Error  string `json:"error,omitempty"`
}

// apply says what is to be done, and does it.
func (r *application) apply(cmd *cobra.Command, changes []desired.Change, dryRun, yes bool) error {
	counts := make(map[desired.Action]int)
	keys := 0
	outcomes := make([]outcome, len(changes))
	for i, c := range changes {
		counts[c.Action]++
		outcomes[i].Change = c
		if r.secrets[c.Name] != "" && c.Kind == desired.OutlineServer && c.ID != "" {
			keys++
		}
		if err := r.show(c); err != nil {
			return err
		}
	}
	todo := len(changes) - counts[desired.Unchanged]
	summary := fmt.Sprintf("%d to create, %d to update, %d to delete, %d unchanged", counts[desired.Create], counts[desired.Update], counts[desired.Delete], counts[desired.Unchanged])
	if keys > 0 {
		summary += fmt.Sprintf("; the access keys of %d Outline servers are for the service to compare", keys)
	}
	r.say("%s", summary)
	switch {
	case dryRun:
		for i, c := range changes {
			if c.Action != desired.Unchanged {
				outcomes[i].Result = "pending"
			}
		}
		if err := r.printOutcomes(outcomes); err != nil {
			return err
		}
		if todo > 0 {
			return errPending
		}
		return nil
	case counts[desired.Delete] > 0:
		if err := r.confirm(cmd, yes, fmt.Sprintf("Delete these %d for good?", counts[desired.Delete])); err != nil {
			return err
		}
	}
	failed := 0
	for i, c := range changes {
		changed, err := r.do(cmd.Context(), c)
		switch {
		case err != nil && cmd.Context().Err() != nil:
			return err
		case err != nil:
			failed++
			outcomes[i].Result, outcomes[i].Error = "failed", api.Hide(sentence(err))
			r.say("%s%s %s: %s", where(c), c.Kind.Words(), c.Name, outcomes[i].Error)
		case changed:
			outcomes[i].Result = "done"
			if c.Action == desired.Unchanged {
				outcomes[i].Action = desired.Update
				r.say("%s %s: it has another access key now", c.Kind.Words(), c.Name)
			}
		}
	}
	if err := r.printOutcomes(outcomes); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d changes failed; what was done stays, and the same command goes on with the rest", failed, todo)
	}
	return nil
}

func where(c desired.Change) string {
	if c.At == "" {
		return ""
	}
	return c.At + ": "
}

var signs = map[desired.Action]string{desired.Create: "+", desired.Update: "~", desired.Delete: "-"}

// show prints what is to be done to an object.
func (r *application) show(c desired.Change) error {
	if r.json() || c.Action == desired.Unchanged {
		return nil
	}
	var fields []string
	for _, f := range c.Fields {
		if c.Action == desired.Create {
			fields = append(fields, f.Name+" "+desired.Readable(f.Name, f.After))
		} else {
			fields = append(fields, f.Name+" "+desired.Readable(f.Name, f.Before)+" -> "+desired.Readable(f.Name, f.After))
		}
	}
	if c.Action == desired.Delete && c.Kind == desired.User {
		fields = append(fields, "with all devices and subscriptions")
	}
	line := signs[c.Action] + " " + c.Kind.Words() + " " + c.Name
	if len(fields) > 0 {
		line += ": " + strings.Join(fields, ", ")
	}
	_, err := io.WriteString(r.Stdout, terminal.Clean(line)+"\n")
	return err
}

func (r *application) printOutcomes(outcomes []outcome) error {
	if !r.json() {
		return nil
	}
	return r.printJSON(map[string]any{"items": outcomes, "next": nil})
}

// do makes one change, and says whether something was changed.
func (r *application) do(ctx context.Context, c desired.Change) (bool, error) {
	switch {
	case c.Action == desired.Delete:
		return true, r.remove(ctx, c)
	case c.Action == desired.Create:
		return true, r.create(ctx, c)
	case c.Kind == desired.OutlineServer && r.secrets[c.Name] != "":
		c.Set["access_key"] = r.secrets[c.Name]
		object, err := r.client.OutlineServers().Update(ctx, c.ID, c.Set)
		return c.Action == desired.Update || err == nil && object.Value.Key.Generation != r.keys[c.ID], err
	case c.Action == desired.Unchanged:
		return false, nil
	default:
		return true, r.update(ctx, c)
	}
}

func (r *application) create(ctx context.Context, c desired.Change) error {
	switch c.Kind {
	case desired.Region:
		if c.Set["name"] == nil {
			c.Set["name"] = c.Name
		}
		return made(ctx, r, r.client.Regions(), c, "code")
	case desired.Plan:
		return made(ctx, r, r.client.Plans(), c, "name")
	case desired.OutlineServer:
		c.Set["access_key"] = r.secrets[c.Name]
		return made(ctx, r, r.client.OutlineServers(), c, "name")
	default:
		if len(c.Own) > 0 {
			c.Set["limits"] = c.Own
		}
		if err := made(ctx, r, r.client.Users(), c, "name"); err != nil {
			return err
		}
		return r.subscribe(ctx, r.ids[desired.User][c.Name], c.Subscription)
	}
}

// made makes an object, whose id is known from then on.
func made[T any](ctx context.Context, r *application, things api.Collection[T], c desired.Change, naming string) error {
	key, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	c.Set[naming] = c.Name
	object, err := things.Create(ctx, c.Set, key.String())
	if err != nil {
		return err
	}
	var shown struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(object.JSON, &shown); err != nil {
		return err
	}
	r.know(c.Kind, c.Name, shown.ID)
	return nil
}

func (r *application) update(ctx context.Context, c desired.Change) error {
	if len(c.Own) > 0 {
		if _, err := r.client.UpdateLimits(ctx, c.ID, c.Own); err != nil {
			return err
		}
	}
	if len(c.Set) > 0 {
		var err error
		switch c.Kind {
		case desired.Region:
			_, err = r.client.Regions().Update(ctx, c.ID, c.Set)
		case desired.Plan:
			_, err = r.client.Plans().Update(ctx, c.ID, c.Set)
		case desired.OutlineServer:
			_, err = r.client.OutlineServers().Update(ctx, c.ID, c.Set)
		default:
			_, err = r.client.Users().Update(ctx, c.ID, c.Set)
		}
		if err != nil {
			return err
		}
	}
	return r.subscribe(ctx, c.ID, c.Subscription)
}

// subscribe makes a user's subscription, or changes it.
func (r *application) subscribe(ctx context.Context, user string, s *desired.SubscriptionChange) error {
	if s == nil {
		return nil
	}
	fields := make(map[string]any)
	if s.EndsAt != "" {
		fields["ends_at"] = s.EndsAt
	}
	if s.Plan != "" {
		plan, known := r.ids[desired.Plan][s.Plan]
		if !known {
			return fmt.Errorf("there is no plan %q", s.Plan)
		}
		fields["plan_id"] = plan
	}
	if s.ID != "" {
		_, err := r.client.Subscriptions().Update(ctx, s.ID, fields)
		return err
	}
	key, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	fields["user_id"] = user
	_, err = r.client.Subscriptions().Create(ctx, fields, key.String())
	return err
}

func (r *application) remove(ctx context.Context, c desired.Change) error {
	switch c.Kind {
	case desired.Region:
		return r.client.Regions().Delete(ctx, c.ID)
	case desired.Plan:
		return r.client.Plans().Delete(ctx, c.ID)
	case desired.OutlineServer:
		return r.client.OutlineServers().Delete(ctx, c.ID)
	default:
		return r.client.Users().Delete(ctx, c.ID)
	}
}
