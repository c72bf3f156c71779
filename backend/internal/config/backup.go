package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/backend/internal/backup"
	"github.com/httvps/httvps/internal/configfile"
)

// Backup says how the records are backed up while the service runs.
type Backup struct {
	// Directory is where backups are made by the clock. It must exist. Empty: none are.
	Directory string `yaml:"directory" env:"DIRECTORY"`
	// Interval is between one and the next.
	Interval configfile.Duration `yaml:"interval" env:"INTERVAL"`
	// Keep is how many stay in Directory.
	Keep int `yaml:"keep" env:"KEEP"`
	// Recipient is the public half of the recovery key, age1…, which backups are made for.
	Recipient string `yaml:"recipient" env:"RECIPIENT"`
	// RecoveryKeyFile holds the recovery key, for who wants each backup to be restored for
	// a try on this machine, which can then read them. Empty: none is.
	RecoveryKeyFile string `yaml:"recovery_key_file" env:"RECOVERY_KEY_FILE"`
}

// The bounds of Interval and Keep.
const (
	minBackupInterval = time.Minute
	maxBackupInterval = 31 * 24 * time.Hour
	maxBackupKeep     = 1000
)

func (b Backup) problems() []error {
	var problems []error
	if b.Directory != "" && b.Recipient == "" {
		problems = append(problems, errors.New("backup.recipient is empty, want age1…: backup key --out FILE makes a recovery key and prints it"))
	}
	if b.Recipient != "" {
		if err := backup.CheckRecipient(b.Recipient); err != nil {
			problems = append(problems, fmt.Errorf("backup.recipient: %w", err))
		}
	}
	if d := time.Duration(b.Interval); d < minBackupInterval || d > maxBackupInterval {
		problems = append(problems, fmt.Errorf("backup.interval is %v, want %v to %v", d, minBackupInterval, maxBackupInterval))
	}
	if b.Keep < 1 || b.Keep > maxBackupKeep {
		problems = append(problems, fmt.Errorf("backup.keep is %d, want 1 to %d", b.Keep, maxBackupKeep))
	}
	return problems
}

// check looks at what the settings name.
func (b Backup) check() []error {
	var problems []error
	if b.Directory != "" {
		if err := backup.CheckDir(b.Directory); err != nil {
			problems = append(problems, fmt.Errorf("backup.directory: %w", err))
		}
	}
	if b.RecoveryKeyFile != "" {
		if _, err := backup.ReadKeyFile(b.RecoveryKeyFile); err != nil {
			problems = append(problems, fmt.Errorf("backup.recovery_key_file: %w", err))
		}
	}
	return problems
}
