package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/embedded"
	"github.com/openvantage/vantage/fault"
)

// Where the private database is when nobody says: beside the user, or where root keeps such
// things if PostgreSQL's user cannot enter that place.
const (
	defaultDataDir = "./var"
	rootDataDir    = "/var/lib/vantage"
)

// A database is the one that was named, or a private one with its server.
type database struct {
	url    string
	dir    string           // the data directory, where other things are kept too
	server *embedded.Server // nil when it is somebody else's
}

// archiveURL is the setting, or the place in the data directory.
func (d *database) archiveURL(set string) (string, error) {
	if set != "" {
		return set, nil
	}
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return archive.FolderURL(filepath.Join(dir, "archive")), nil
}

// databaseFlags name a database for commands that need nothing else.
type databaseFlags struct {
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" help:"PostgreSQL 14 or newer. Absent: the private one under the data directory."`
	DataDir     string `name:"data-dir" env:"DATA_DIR" help:"Where the private PostgreSQL keeps its files."`
}

// openDatabase starts the private database unless one is named.
func openDatabase(ctx context.Context, f databaseFlags, log *slog.Logger) (*database, error) {
	dir := f.DataDir
	if dir == "" {
		dir = defaultDataDir
	}
	if f.DatabaseURL != "" {
		return &database{url: f.DatabaseURL, dir: dir}, nil
	}
	s, err := embedded.Start(ctx, embedded.Config{DataDir: dir, Log: log.With("from", "postgresql")})
	if fault.Is(err, fault.Invalid) && f.DataDir == "" && os.Geteuid() == 0 {
		log.Info("PostgreSQL's user cannot work in ./var; using "+rootDataDir+" instead", "because", fault.Of(err).Message)
		dir = rootDataDir
		s, err = embedded.Start(ctx, embedded.Config{DataDir: dir, Log: log.With("from", "postgresql")})
	}
	if err != nil {
		return nil, err
	}
	return &database{url: s.URL, dir: dir, server: s}, nil
}

// joinDatabase is openDatabase for a command that may run beside a server: where a server has
// the private database open, that one is used.
func joinDatabase(ctx context.Context, f databaseFlags, log *slog.Logger) (*database, error) {
	if f.DatabaseURL == "" {
		dirs := []string{f.DataDir}
		if f.DataDir == "" {
			dirs = []string{defaultDataDir, rootDataDir}
		}
		for _, dir := range dirs {
			if url, err := embedded.Find(dir); err == nil {
				return &database{url: url, dir: dir}, nil
			}
		}
	}
	return openDatabase(ctx, f, log)
}

// with runs do on the database with the present schema.
func (f databaseFlags) with(ctx context.Context, do func(*db.DB) error) error {
	return f.withDatabase(ctx, func(_ *database, pool *db.DB) error { return do(pool) })
}

func (f databaseFlags) withDatabase(ctx context.Context, do func(*database, *db.DB) error) error {
	d, err := joinDatabase(ctx, f, quiet())
	if err != nil {
		return err
	}
	defer d.close(ctx)
	if err := db.Migrate(ctx, d.url); err != nil {
		return err
	}
	pool, err := db.Open(ctx, d.url, db.Options{MaxConns: int32(max(4, 2*runtime.GOMAXPROCS(0)))})
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.MakePartitions(ctx, pool.Now()); err != nil {
		return err
	}
	return do(d, pool)
}

// close stops the private database, also when ctx has ended.
func (d *database) close(ctx context.Context) {
	if d.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = d.server.Stop(ctx) // it logs its own trouble
}

// gone is closed when the private database has stopped; for another one it never is.
func (d *database) gone() <-chan struct{} {
	if d.server == nil {
		return nil
	}
	return d.server.Done()
}
