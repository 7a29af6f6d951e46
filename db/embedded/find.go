//go:build unix

package embedded

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/openvantage/vantage/fault"
)

// Find returns the URL of the cluster beneath dataDir that another process is running, so
// that a command can do its work beside a server. It fails with UNAVAILABLE when none runs,
// and when its password is not this user's to read.
func Find(dataDir string) (string, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	data := filepath.Join(dir, "pg")
	l := pidFile(data)
	if len(l) < 8 || strings.TrimSpace(l[7]) != "ready" || !alive(l[0], data) {
		return "", fault.New(fault.Unavailable, "No PostgreSQL runs in %s.", dir)
	}
	password, err := os.ReadFile(filepath.Join(dir, "password"))
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "The database in %s belongs to another user.", dir)
	}
	return address(strings.TrimSpace(l[4]), string(password), databaseName), nil
}

// alive tells a running server from one that left its file behind in a crash.
func alive(pid, data string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && serves(n, data)
}

// address is the URL of a database of the cluster whose socket is in that directory.
func address(socket, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(roleName, password), Path: "/" + database,
		RawQuery: url.Values{"host": {socket}, "sslmode": {"disable"}}.Encode(),
	}
	return u.String()
}
