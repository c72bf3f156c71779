package cli

import (
	"context"
	"sync"

	"github.com/httvps/httvps/ctl/internal/api"
)

const (
	// maxNames is how many names are asked for beside one table; other ids stay ids.
	maxNames = 1_000

	// namesAtOnce is how many of them are asked for at once.
	namesAtOnce = 8
)

// lookup returns the name of the thing that has an id.
type lookup func(ctx context.Context, c *api.Client, id string) (string, error)

func nameOf[T any](things func(*api.Client) api.Collection[T], name func(T) string) lookup {
	return func(ctx context.Context, c *api.Client, id string) (string, error) {
		object, err := things(c).Get(ctx, id)
		return name(object.Value), err
	}
}

var (
	userName     = nameOf((*api.Client).Users, func(u api.User) string { return u.Name })
	planName     = nameOf((*api.Client).Plans, func(p api.Plan) string { return p.Name })
	deviceName   = nameOf((*api.Client).Devices, func(d api.Device) string { return d.Name })
	operatorName = nameOf((*api.Client).Operators, func(o api.Operator) string { return o.Name })
	gatewayName  = nameOf((*api.Client).Gateways, func(g api.Gateway) string { return g.Name })
)

// names are what people know things by: by the title of a column of ids, and the id.
type names map[string]map[string]string

// namesFor asks for the names of what objects refer to; by has the columns that are
// ids. What is deleted, or cannot be had at the moment, has none: its id is shown, and
// the table does not fail for it.
func namesFor[T any](ctx context.Context, c *api.Client, objects []api.Object[T], columns []column[T], by map[string]lookup) names {
	found := names{}
	var (
		mu    sync.Mutex // guards found
		wg    sync.WaitGroup
		slots = make(chan struct{}, namesAtOnce)
		asked int
	)
	defer wg.Wait()
	for _, col := range columns {
		ask, ok := by[col.title]
		if !ok {
			continue
		}
		known := map[string]string{}
		found[col.title] = known
		seen := map[string]bool{}
		for _, object := range objects {
			id := col.value(object.Value)
			if id == "" || seen[id] || asked == maxNames {
				continue
			}
			seen[id] = true
			asked++
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				name, err := ask(ctx, c, id)
				if err != nil || name == "" {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				known[id] = name
			})
		}
	}
	return found
}

// inList is what a list shows for an id: the name, and the id as well where the name
// alone would not tell two things apart.
func (n names) inList(title, id string) string {
	name, ok := n[title][id]
	if !ok {
		return id
	}
	for other, same := range n[title] {
		if other != id && same == name {
			return name + " (" + id + ")"
		}
	}
	return name
}

// alone is what is shown for an id where there is room.
func (n names) alone(title, id string) string {
	if name, ok := n[title][id]; ok {
		return name + " (" + id + ")"
	}
	return id
}
