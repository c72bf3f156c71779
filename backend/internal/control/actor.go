package control

import "context"

// ActorKind says what sort of somebody changes something. The texts are part of the
// API.
type ActorKind string

// Who changes things.
const (
	ActorOperator ActorKind = "operator" // by the API
	ActorDevice   ActorKind = "device"   // about itself
	ActorGateway  ActorKind = "gateway"  // about itself, or for a device that it carries
	ActorCommand  ActorKind = "command"  // a person on the machine of the service
	ActorSystem   ActorKind = "system"   // the service by itself
)

// Actor is who changes something, as the audit log names him.
type Actor struct {
	Kind    ActorKind
	ID      string
	Name    string // as it was then
	TokenID string // of the API token in use
	Address string // that the request came from
	Reason  string // that an operator gave
}

type actorKey struct{}

// WithActor returns a context in which a is who changes things.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf returns who changes things in a context: the service by itself, unless it
// was said.
func ActorOf(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if a.Kind == "" {
		a.Kind = ActorSystem
	}
	return a
}

// acting returns a context in which somebody else acts, with the same request.
func acting(ctx context.Context, kind ActorKind, id, name string) context.Context {
	a := ActorOf(ctx)
	a.Kind, a.ID, a.Name = kind, id, name
	return WithActor(ctx, a)
}

// ByOperator returns a context in which an operator acts, for a reason that he gave
// or none, with the same request.
func ByOperator(ctx context.Context, who Bearer, reason string) (context.Context, error) {
	var c checks
	c.that(validText(reason, maxReason), "Audit-Reason", "want at most 200 characters, none of them a control character")
	if err := c.err(); err != nil {
		return ctx, err
	}
	a := ActorOf(ctx)
	a.TokenID, a.Reason = who.Token.ID, reason
	return acting(WithActor(ctx, a), ActorOperator, who.ID, who.Name), nil
}

// ByGateway returns a context in which a gateway acts, with the same request.
func ByGateway(ctx context.Context, gateway Gateway) context.Context {
	return acting(ctx, ActorGateway, gateway.ID, gateway.Name)
}

// ByDevice returns a context in which a device acts, with the same request.
func ByDevice(ctx context.Context, id string) context.Context {
	return acting(ctx, ActorDevice, id, "")
}

const maxReason = 200 // characters
