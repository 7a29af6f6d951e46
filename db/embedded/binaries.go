//go:build unix

package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openvantage/vantage/fault"
)

// A search says where to look for PostgreSQL's programs, in the order of its fields.
type search struct {
	explicit string // Config.BinDir
	env      string // PG_BINDIR
	packages string // one directory per major version
	path     func(program string) (string, error)
}

func binaries(explicit string) search {
	return search{explicit: explicit, env: os.Getenv("PG_BINDIR"), packages: "/usr/lib/postgresql", path: exec.LookPath}
}

// fitting returns the first directory whose programs can open the cluster in data; where there
// is no cluster yet, simply the first.
//
// It fails with INVALID when a directory that somebody named has no programs in it, and with
// UNAVAILABLE when none is found, or none of the cluster's version.
func (s search) fitting(ctx context.Context, data string) (string, error) {
	dirs, err := s.all()
	if err != nil {
		return "", err
	}
	if len(dirs) == 0 {
		return "", fault.New(fault.Unavailable, "No PostgreSQL server is installed. Install one (on Debian: apt-get install postgresql), "+
			"set PG_BINDIR to the directory of its initdb and postgres, or set DATABASE_URL to a server that runs.")
	}
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return dirs[0], nil
	}
	if err != nil {
		return "", err
	}
	want := strings.TrimSpace(string(b))
	var found []string
	for _, dir := range dirs {
		got, err := major(ctx, dir)
		if err != nil {
			return "", err
		}
		if got == want {
			return dir, nil
		}
		found = append(found, fmt.Sprintf("%s in %s", got, dir))
	}
	return "", fault.New(fault.Unavailable, "The cluster in %s was made by PostgreSQL %s, and only PostgreSQL %s was found. "+
		"Install postgresql-%s, set PG_BINDIR to its programs, or move the cluster away to begin with an empty one.",
		data, want, strings.Join(found, ", "), want)
}

// all returns every directory with a server in it, the preferred one first.
func (s search) all() ([]string, error) {
	var dirs []string
	for _, named := range []struct{ dir, field string }{{s.explicit, "BinDir"}, {s.env, "PG_BINDIR"}} {
		if named.dir == "" {
			continue
		}
		dir, err := filepath.Abs(named.dir)
		if err != nil {
			return nil, err
		}
		if !complete(dir) {
			return nil, fault.Field(named.field, "%s has no initdb and postgres in it.", dir)
		}
		dirs = append(dirs, dir)
	}
	packaged, err := filepath.Glob(filepath.Join(s.packages, "*", "bin"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(packaged, func(a, b string) int { return cmp.Compare(packageVersion(b), packageVersion(a)) })
	dirs = append(dirs, packaged...)
	if program, err := s.path("postgres"); err == nil {
		// Often a link from one directory of many programs to where the two lie together.
		if program, err = filepath.EvalSymlinks(program); err == nil {
			dirs = append(dirs, filepath.Dir(program))
		}
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !complete(dir) }), nil
}

// complete reports whether both programs are there: a client's package has neither.
func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// packageVersion compares as numbers do: 9.6 lies before 15.
func packageVersion(dir string) float64 {
	v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
	if err != nil {
		return 0
	}
	return v
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// major asks a server for its major version: "15", as a cluster's PG_VERSION has it.
func major(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", dir, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("ask %s for its version: it says %q", dir, out)
	}
	return string(m[1]), nil
}
