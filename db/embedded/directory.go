//go:build unix

package embedded

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openvantage/vantage/fault"
)

// port only names the socket file: nothing listens on a network.
const port = "5432"

// socketPathLimit is the longest path of a socket that every Unix takes.
//
// Source: unix(7), sun_path: 108 bytes on Linux and 104 on the BSDs, with the closing zero.
const socketPathLimit = 103

// A user is who the server runs as. credential is nil when that is us.
type user struct {
	credential *syscall.Credential
	name       string
	uid, gid   int
}

// serverUser picks who runs the cluster in dir: ourselves or, when we are root, the owner of
// the cluster that is there, then PG_USER, postgres and nobody.
func serverUser(dir string) (user, error) {
	if uid := os.Geteuid(); uid != 0 {
		return user{uid: uid, gid: os.Getegid()}, nil
	}
	if info, err := os.Stat(filepath.Join(dir, "pg")); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return dropped(fmt.Sprintf("user %d", st.Uid), int(st.Uid), int(st.Gid)), nil
		}
	}
	wanted := os.Getenv("PG_USER")
	for _, name := range []string{wanted, "postgres", "nobody"} {
		if name == "" {
			continue
		}
		u, err := osuser.Lookup(name)
		if err != nil {
			if name == wanted {
				return user{}, fault.Wrap(err, fault.Invalid, "PG_USER is %q, and there is no such user.", name)
			}
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return user{}, err
		}
		if uid == 0 {
			return user{}, fault.New(fault.Invalid, "PG_USER is %q, which is root: PostgreSQL refuses to run as root.", name)
		}
		return dropped(name, uid, gid), nil
	}
	return user{}, fault.New(fault.Unavailable, "PostgreSQL refuses to run as root, and there is no user postgres or nobody. Name one in PG_USER.")
}

func dropped(name string, uid, gid int) user {
	id := uint32(gid)
	return user{
		credential: &syscall.Credential{Uid: uint32(uid), Gid: id, Groups: []uint32{id}},
		name:       name, uid: uid, gid: gid,
	}
}

// own gives a path of root's to the user.
func (u user) own(path string) error {
	if u.credential == nil {
		return nil
	}
	return os.Chown(path, u.uid, u.gid)
}

// reaches fails with INVALID, blaming the field, when root has chosen a directory that the
// user may not enter. PostgreSQL itself would only say "permission denied".
func (u user) reaches(field, dir string) error {
	if u.credential == nil {
		return nil
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		bit := os.FileMode(0o001)
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == u.uid {
			bit = 0o100
		} else if ok && int(st.Gid) == u.gid {
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return fault.Field(field, "PostgreSQL runs as %s here, as it refuses to be root, and %s may not enter %s. Use a directory elsewhere.", u.name, u.name, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// prepare makes the data directory and returns its real path and who the server runs as.
func prepare(dir string) (string, user, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", user{}, fault.Wrap(err, fault.Invalid, "The data directory %s cannot be created.", dir).At("DataDir")
	}
	u, err := serverUser(dir)
	if err != nil {
		return "", user{}, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", user{}, err
	}
	if err := u.reaches("DataDir", parent); err != nil {
		return "", user{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", user{}, fault.Wrap(err, fault.Invalid, "The data directory %s cannot be created.", dir).At("DataDir")
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", user{}, err
	}
	// Its owner and mode are about to change: a slip such as /tmp must not get that far.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", user{}, fault.Wrap(err, fault.Invalid, "The data directory %s cannot be read.", dir).At("DataDir")
	}
	if _, err := os.Lstat(filepath.Join(dir, "lock")); err != nil && len(entries) > 0 {
		return "", user{}, fault.Field("DataDir", "%s holds something else already. Name an empty or a new directory.", dir)
	}
	if err := u.own(dir); err != nil {
		return "", user{}, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return "", user{}, fault.Wrap(err, fault.Invalid, "The data directory %s belongs to another user.", dir).At("DataDir")
	}
	return dir, u, u.reaches("DataDir", dir)
}

// lockPatience is how long a lock may seem taken that is not: far longer than a fork takes.
const lockPatience = time.Second

// acquire takes the data directory for this process. The kernel lets go of it when we end,
// in whatever way, and the server does not inherit it.
func acquire(dir string, u user) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The data directory %s cannot be locked.", dir).At("DataDir")
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// A process that is being forked from the last holder has its files for a moment.
	for end := time.Now().Add(lockPatience); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(end); {
		<-time.After(pollEvery)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.Conflict, "The data directory %s is in use by process %s. Stop it, or choose another directory.", dir, strings.TrimSpace(string(holder)))
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%-20d\n", os.Getpid()), 0)
	if err := errors.Join(err, u.own(path)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// socketDir makes the directory of the socket: beneath dir or, where that would make a path
// too long for the kernel or one that a connection string cannot hold, a temporary one.
func socketDir(dir string, u user) (path string, temporary bool, err error) {
	path = filepath.Join(dir, "run")
	if len(socketFile(path)) > socketPathLimit || strings.Contains(path, ",") {
		sum := sha256.Sum256([]byte(dir))
		path, temporary = filepath.Join(os.TempDir(), fmt.Sprintf("vantage-%x", sum[:8])), true
		if len(socketFile(path)) > socketPathLimit {
			return "", false, fault.Field("DataDir", "Neither %s nor TMPDIR is short enough for a socket.", dir)
		}
		if err := u.reaches("TMPDIR", filepath.Dir(path)); err != nil {
			return "", false, err
		}
	}
	if err := os.Mkdir(path, 0o700); err == nil {
		return path, temporary, u.own(path)
	} else if !errors.Is(err, os.ErrExist) {
		return "", false, err
	}
	// In a temporary directory anyone could have made it, to have us connect to their server.
	info, err := os.Lstat(path)
	if err != nil {
		return "", false, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != u.uid || info.Mode().Perm() != 0o700 {
		return "", false, fault.New(fault.Conflict, "%s is not a private directory of the server's user. Remove it and try again.", path)
	}
	return path, temporary, nil
}

func socketFile(dir string) string { return filepath.Join(dir, ".s.PGSQL."+port) }
