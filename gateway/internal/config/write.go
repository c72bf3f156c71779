package config

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Write makes a file with those settings of c that are not the defaults. It must not
// be there yet. Secrets are not written.
func (c Config) Write(path string) error {
	c.Knock.Keys, c.Upstream.Outline.Keys = nil, nil
	text, err := c.sparse()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the operator says where, and there is no secret in it
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if _, err := file.Write(text); err != nil {
		_ = file.Close()
		return fmt.Errorf("configuration: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

const heading = "# A gateway's configuration. What is not here has its default: `httvps-gateway config print` shows all.\n"

// sparse returns c as YAML without what is the default.
func (c Config) sparse() ([]byte, error) {
	var ours, defaults yaml.Node
	if err := ours.Encode(c); err != nil {
		return nil, err
	}
	if err := defaults.Encode(Default()); err != nil {
		return nil, err
	}
	prune(&ours, &defaults)
	text := bytes.NewBufferString(heading)
	encoder := yaml.NewEncoder(text)
	encoder.SetIndent(2)
	if err := encoder.Encode(&ours); err != nil {
		return nil, err
	}
	if err := encoder.Close(); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// prune takes the keys out of a mapping that have the same values in another of the
// same kind.
func prune(node, defaults *yaml.Node) {
	var kept []*yaml.Node
	for i := 0; i < len(node.Content); i += 2 {
		key, value, usual := node.Content[i], node.Content[i+1], defaults.Content[i+1]
		if value.Kind == yaml.MappingNode {
			if prune(value, usual); len(value.Content) == 0 {
				continue
			}
		} else if equal(value, usual) {
			continue
		}
		kept = append(kept, key, value)
	}
	node.Content = kept
}

func equal(a, b *yaml.Node) bool {
	if a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !equal(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// WithPath returns a tunnel's URL with a path that nobody guesses, unless it has
// one. What is no such URL comes back as it is.
func WithPath(text string) string {
	u, err := ParseURL(text)
	if err != nil || u.Path != "/" {
		return text
	}
	random := make([]byte, 15)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	return strings.TrimSuffix(text, "/") + "/" + strings.ToLower(base32.StdEncoding.EncodeToString(random))
}
