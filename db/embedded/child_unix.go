//go:build unix && !linux

package embedded

import "syscall"

// attributes put the child into a process group of its own, out of the terminal's reach. Only
// Linux can tie its life to ours; elsewhere the next Start stops a server that was left over.
func attributes(credential *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}

// serves reports whether pid is alive, which is all that can be known here.
func serves(pid int, _ string) bool { return syscall.Kill(pid, 0) == nil }
