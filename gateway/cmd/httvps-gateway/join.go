package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/command"
)

// What a configuration has that join writes, unless flags say otherwise.
const (
	defaultData = "/var/lib/httvps-gateway"
	plainHTTP   = ":80"
)

func newJoin(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "join LINK|-",
		Short: "Make this gateway a member of a service",
		Long: "Make this gateway a member of the service that the link is from. The link is made by\n" +
			"`httvpsctl gateway create` and works once; - reads it from stdin, where no process list shows it.\n" +
			"After a lost answer, run the same command again.\n\n" +
			"When the file of --config is not there, it is written: with --url wss://HOST, a path that nobody guesses, and\n" +
			"--acme or --tls-cert and --tls-key.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return command.Misuse("join wants one join link, or - for stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			link := args[0]
			if link == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("read the join link: %w", err)
				}
				link = strings.TrimSpace(string(text))
			}
			if err := s.writeConfig(cmd); err != nil {
				return err
			}
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			if cfg.DataDir == "" || cfg.URL == "" {
				return command.Misuse("join needs --data and --url, or --config with data_dir and url")
			}
			joined, err := gateway.Join(cmd.Context(), gateway.JoinConfig{
				Link: link, DataDir: cfg.DataDir, URL: cfg.URL, Version: version,
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "joined as gateway %s in region %s\n", joined.GatewayID, joined.Region)
			return err
		},
	}
}

// writeConfig makes the configuration file from the flags, unless it is there or
// none is named. It comes before the membership, which knows the URL from then on.
func (s *settings) writeConfig(cmd *cobra.Command) error {
	if s.file == "" {
		return nil
	}
	if _, err := os.Stat(s.file); !errors.Is(err, fs.ErrNotExist) {
		return nil // loading it says what is wrong
	}
	if s.url == "" || !s.acme && (s.tls == "" || s.key == "") {
		return command.Misuse("%s is not there, and to write it join needs --url wss://HOST with --acme, or with --tls-cert and --tls-key", s.file)
	}
	s.url = gateway.URLWithPath(s.url)
	cfg, err := s.written(cmd, nil)
	if err != nil {
		return err
	}
	inForce, err := s.written(cmd, s.environ)
	if err != nil {
		return err
	}
	if err := inForce.Validate(); err != nil {
		return err
	}
	if err := cfg.Write(s.file); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", s.file)
	return err
}

// written is the configuration that join writes, under an environment.
func (s *settings) written(cmd *cobra.Command, environ []string) (gateway.Config, error) {
	cfg, err := gateway.LoadConfig("", environ)
	if err != nil {
		return gateway.Config{}, err
	}
	cfg.DataDir = cmp.Or(cfg.DataDir, defaultData)
	s.apply(cmd, &cfg)
	if cfg.TLS.ACME.Enabled {
		cfg.HTTPListen = cmp.Or(cfg.HTTPListen, plainHTTP)
	}
	return cfg, nil
}
