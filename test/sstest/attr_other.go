//go:build !linux

package sstest

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
