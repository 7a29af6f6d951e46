package embedded

import (
	"fmt"
	"os"
	"syscall"
)

// attributes put the child into a process group of its own, out of the terminal's reach, and
// have the kernel send it last when we are gone, however that came about.
func attributes(credential *syscall.Credential, last syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true, Pdeathsig: last}
}

// serves reports whether pid is a server of this cluster: one works in its data directory,
// which is a real path, without links.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == data
}
