package cli

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

const (
	pageSize     = 100
	defaultLimit = 1_000
	maxLimit     = 100_000
	// maxLookup bounds the search for a name in a service that cannot filter.
	maxLookup = 10_000
)

// kind is what the verbs list, show and delete need to know about a thing.
type kind[T any] struct {
	name    string // what to call one
	arg     string // what its reference is called in help
	things  func(*api.Client) api.Collection[T]
	columns []column[T]       // of a list
	details []column[T]       // that show adds
	names   map[string]lookup // of columns that are ids, by their titles
	// find turns what the operator typed into an id.
	find func(context.Context, *api.Client, string) (string, error)
}

func (k kind[T]) all() []column[T] {
	return slices.Concat(k.columns, k.details)
}

// print shows one with all that there is to say about it.
func (k kind[T]) print(a *app, cmd *cobra.Command, c *api.Client, object api.Object[T]) error {
	var known names
	if !a.json() {
		known = namesFor(cmd.Context(), c, []api.Object[T]{object}, k.all(), k.names)
	}
	return printObject(a, object, k.all(), known)
}

// filter is a flag of list that narrows it.
type filter struct {
	flag, usage string
	// value turns the flag's text into a query parameter and its value.
	value func(context.Context, *api.Client, string) (string, string, error)
}

// filterBy passes what find makes of the flag, an id mostly, as the parameter.
func filterBy(flag, usage, parameter string, find func(context.Context, *api.Client, string) (string, error)) filter {
	return filter{flag, usage, func(ctx context.Context, c *api.Client, ref string) (string, string, error) {
		id, err := find(ctx, c, ref)
		return parameter, id, err
	}}
}

// searched narrows a list to names that begin so.
var searched = filter{"search", "only those whose name begins with `TEXT`, in the order of names", func(_ context.Context, _ *api.Client, text string) (string, string, error) {
	return "q", text, nil
}}

// listCommand reads the filters in the order given: those that ask the service
// nothing come first, so that a mistake in one of them costs no request.
func listCommand[T any](a *app, k kind[T], filters ...filter) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List them", Args: exactly(0)}
	page := pageFlags(cmd)
	texts := make([]string, len(filters))
	for i, f := range filters {
		cmd.Flags().StringVar(&texts[i], f.flag, "", f.usage)
	}
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		query := url.Values{}
		for i, f := range filters {
			if texts[i] == "" {
				continue
			}
			name, value, err := f.value(cmd.Context(), c, texts[i])
			if err != nil {
				return err
			}
			query.Set(name, value)
		}
		return listing(a, cmd, c, k.things(c), query, *page, k.columns, k.names)
	})
	return cmd
}

// paging is which part of a list is wanted.
type paging struct {
	limit  int
	cursor string
}

func pageFlags(cmd *cobra.Command) *paging {
	var p paging
	cmd.Flags().IntVar(&p.limit, "limit", defaultLimit, "show at most `N`")
	cmd.Flags().StringVar(&p.cursor, "cursor", "", "continue where a list was cut: the `CURSOR` it named")
	return &p
}

// listing shows that part of a list, and says when there is more.
func listing[T any](a *app, cmd *cobra.Command, c *api.Client, things api.Collection[T], query url.Values, part paging, columns []column[T], by map[string]lookup) error {
	if part.limit < 1 || part.limit > maxLimit {
		return misuse(cmd, "--limit is %d, want 1 to %d", part.limit, maxLimit)
	}
	page, err := collect(cmd.Context(), things, query, part.limit, part.cursor)
	if err != nil {
		return err
	}
	var known names
	if !a.json() {
		known = namesFor(cmd.Context(), c, page.Items, columns, by)
	}
	if err := printList(a, page, columns, known); err != nil {
		return err
	}
	if page.Next != "" {
		a.say("There are more: these are %d. Continue with --cursor %s", len(page.Items), page.Next)
	}
	return nil
}

// collect follows the pages of a list up to limit items.
func collect[T any](ctx context.Context, things api.Collection[T], query url.Values, limit int, cursor string) (api.Page[T], error) {
	var all api.Page[T]
	for {
		page, err := things.List(ctx, query, min(pageSize, limit-len(all.Items)), cursor)
		if err != nil {
			return api.Page[T]{}, err
		}
		all.Items = append(all.Items, page.Items...)
		all.Next = page.Next
		if page.Next == "" || len(all.Items) >= limit {
			return all, nil
		}
		if len(page.Items) == 0 {
			return api.Page[T]{}, fmt.Errorf("the service sent an empty page and says that more follow: the list cannot be followed")
		}
		cursor = page.Next
	}
}

func showCommand[T any](a *app, k kind[T]) *cobra.Command {
	return &cobra.Command{
		Use: "show " + k.arg, Short: "Show one", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := k.find(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			object, err := k.things(c).Get(cmd.Context(), id)
			if err != nil {
				return err
			}
			return k.print(a, cmd, c, object)
		}),
	}
}

func deleteCommand[T any](a *app, k kind[T], consequence string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete " + k.arg, Short: "Delete one for good", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := k.find(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(cmd, yes, fmt.Sprintf("Delete %s %q%s?", k.name, args[0], consequence)); err != nil {
				return err
			}
			if err := k.things(c).Delete(cmd.Context(), id); err != nil {
				return err
			}
			return a.printDone(k.name, id, "deleted")
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// updating is the RunE of an update: fields reads the flags that were given.
func updating[T any](a *app, k kind[T], fields func(*cobra.Command, *api.Client) (map[string]any, error)) func(*cobra.Command, []string) error {
	return a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		changes, err := fields(cmd, c)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return misuse(cmd, "nothing to change: name it by a flag")
		}
		id, err := k.find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		object, err := k.things(c).Update(cmd.Context(), id, changes)
		if err != nil {
			return err
		}
		return k.print(a, cmd, c, object)
	})
}

// keyFlag adds --idempotency-key; what it returns is read when the command runs.
func keyFlag(cmd *cobra.Command) func() (string, error) {
	var key string
	cmd.Flags().StringVar(&key, "idempotency-key", "", "any `TEXT`: repeating the command with it does not act twice (default: a new one)")
	return func() (string, error) {
		if key != "" {
			return key, nil
		}
		id, err := uuid.NewRandom()
		return id.String(), err
	}
}

// byID takes the reference for an id in the form that isID knows; list is the
// command that shows the ids. It asks the service nothing.
func byID(kind, list string, isID func(string) bool) func(context.Context, *api.Client, string) (string, error) {
	return func(_ context.Context, _ *api.Client, ref string) (string, error) {
		if !isID(ref) {
			return "", &usageError{err: fmt.Errorf("%q is not %s id; see httvpsctl %s", ref, withArticle(kind), list)}
		}
		return strings.ToLower(ref), nil
	}
}

func withArticle(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// isUUID takes the text form alone, of which every id has one.
func isUUID(text string) bool { return len(text) == 36 && uuid.Validate(text) == nil }

// byName takes the reference for an id when it looks like one, else for the
// value of the parameter that name reads.
func byName[T any](kind, parameter string, things func(*api.Client) api.Collection[T], name func(T) (id, name string)) func(context.Context, *api.Client, string) (string, error) {
	return func(ctx context.Context, c *api.Client, ref string) (string, error) {
		if isUUID(ref) {
			return strings.ToLower(ref), nil
		}
		page, err := collect(ctx, things(c), url.Values{parameter: {ref}}, maxLookup, "")
		if err != nil {
			return "", err
		}
		var ids []string
		for _, object := range page.Items {
			if id, is := name(object.Value); is == ref {
				ids = append(ids, id)
			}
		}
		switch {
		case len(ids) == 1:
			return ids[0], nil
		case len(ids) > 1:
			return "", fmt.Errorf("%d are called %q: use the id (%s, %s, …)", len(ids), ref, ids[0], ids[1])
		case page.Next != "":
			return "", fmt.Errorf("no %s %q among the first %d: use the id", kind, ref, maxLookup)
		default:
			return "", fmt.Errorf("there is no %s %q", kind, ref)
		}
	}
}

// creating makes a thing of fields and shows it.
func creating[T any](a *app, cmd *cobra.Command, c *api.Client, k kind[T], fields map[string]any, key func() (string, error)) error {
	repeat, err := key()
	if err != nil {
		return err
	}
	object, err := k.things(c).Create(cmd.Context(), fields, repeat)
	if err != nil {
		return err
	}
	return k.print(a, cmd, c, object)
}

// changed keeps those fields whose flag was given: max_devices is --max-devices.
func changed(cmd *cobra.Command, fields map[string]any) map[string]any {
	maps.DeleteFunc(fields, func(field string, _ any) bool {
		return !cmd.Flags().Changed(strings.ReplaceAll(field, "_", "-"))
	})
	return fields
}
