// Package embedded answers one question: which PostgreSQL do we use when nobody named one?
//
// Start keeps a cluster beneath a data directory and runs it as a child of this process, so
// that a first run needs no set-up. The cluster listens on a Unix socket only, behind a
// password, is durable, and stops with the process, on Linux even when that is killed. One
// process at a time owns a data directory. A process that is root hands the server to an
// unprivileged user, as PostgreSQL refuses to be root.
//
// Nothing here knows tables: the database that Start leaves behind is empty. Only main, which
// decides where the database is, and dbtest import it.
package embedded

import "log/slog"

// A Config says where a cluster lives and how it runs. Only DataDir is needed.
type Config struct {
	// DataDir holds the cluster, its password and its lock. It is created with mode 0700 and
	// belongs to the embedded server: nothing else should be kept in it.
	DataDir string

	// BinDir is the directory of initdb and postgres. When it is empty, PG_BINDIR, the newest
	// Debian package and PATH are tried in this order. An existing cluster is only ever
	// opened by binaries of its own major version, wherever in that order they are.
	BinDir string

	// Params are server settings, laid over our own. Where the server listens is not among
	// them: such settings are ignored.
	Params map[string]string

	// Log receives the server's own log, line by line; nil drops it.
	Log *slog.Logger
}

// Role and database that Start creates. The role is the cluster's superuser.
const (
	roleName     = "vantage"
	databaseName = "vantage"
)

// defaults suit a small server, two cores and upwards of one GiB of memory. Everything not
// named is PostgreSQL's own default; fsync stays on.
var defaults = map[string]string{
	"shared_buffers":   "128MB",
	"max_connections":  "100",
	"jit":              "off", // compiling costs more than our short statements take
	"wal_compression":  "on",
	"max_wal_size":     "2GB",
	"random_page_cost": "1.1", // solid-state disks
	"timezone":         "UTC",

	// Failed statements are in their caller's log. Here they would show values, and thereby
	// the addresses of probes.
	"log_line_prefix":         "",
	"log_error_verbosity":     "terse",
	"log_min_error_statement": "panic",
}
