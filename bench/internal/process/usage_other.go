//go:build !linux

package process

import (
	"errors"
	"time"
)

// errSystem says that only Linux tells what other processes use.
var errSystem = errors.New("what processes use is measured on Linux only")

// CPU is measured on Linux only.
func CPU(int) (time.Duration, error) { return 0, errSystem }

// Resident is measured on Linux only.
func Resident(int) (int64, error) { return 0, errSystem }

// Busy is measured on Linux only.
func Busy() (time.Duration, error) { return 0, errSystem }

// Family is measured on Linux only.
func Family() (time.Duration, error) { return 0, errSystem }

// Machine says what this runs on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Memory int64  `json:"memory_bytes"`
}

// ThisMachine reads what is known about the machine.
func ThisMachine(cores int) Machine { return Machine{Cores: cores} }
