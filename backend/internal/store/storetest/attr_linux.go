package storetest

import "syscall"

// attributes make a process end with this one, whatever ends it, and run as
// account unless that is nil.
func attributes(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Pdeathsig: syscall.SIGQUIT}
}
