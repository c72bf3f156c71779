package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/httvps/httvps/backend/internal/control"
)

// Rescue is for an operator who cannot get into the service any more, or whose
// token somebody else has. It ends the API tokens of all operators and returns
// a new one-time bootstrap link, good for 15 minutes once the control plane
// serves, which gives the owner a new token. The database must exist; no other
// process may have it open when it is an SQLite file.
func Rescue(ctx context.Context, cfg Config) (link string, err error) {
	if err := cfg.Validate(); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	if err := hasFixedAddress(cfg); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	records, err := openStore(ctx, cfg, true, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	authority, err := openAuthority(ctx, cfg, records, cfg.Listener, nil, nil)
	if err != nil {
		return "", err
	}
	link, revoked, err := authority.Rescue(byCommand(ctx, "rescue"))
	if errors.Is(err, control.ErrNoOperator) {
		return "", fmt.Errorf("%w: start the service, which shows a bootstrap link", err)
	}
	if err != nil {
		return "", fmt.Errorf("rescue: %w", err)
	}
	cfg.Log.WarnContext(ctx, "operators' tokens revoked for a rescue", "tokens", revoked)
	return link, nil
}

// hasFixedAddress refuses a link to a port that is chosen only when listening.
func hasFixedAddress(cfg Config) error {
	key, address, url, l := "public_url", cfg.Listen, cfg.PublicURL, cfg.Listener
	if cfg.AdminListen != "" {
		key, address, url, l = "admin_url", cfg.AdminListen, cfg.AdminURL, nil
	}
	if _, port, _ := net.SplitHostPort(address); url == "" && port == "0" && l == nil {
		return fmt.Errorf("%s is empty, want https://HOST[:PORT]: it cannot be guessed from %q", key, address)
	}
	return nil
}

// byCommand returns a context in which a person at this machine runs a command.
func byCommand(ctx context.Context, name string) context.Context {
	return control.WithActor(ctx, control.Actor{Kind: control.ActorCommand, Name: name})
}
