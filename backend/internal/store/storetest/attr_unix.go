//go:build unix && !linux

package storetest

import "syscall"

// attributes make a process run as account unless that is nil.
func attributes(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account}
}
