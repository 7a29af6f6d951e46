package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
)

type migrateCommand struct {
	databaseFlags
	Up     migrateUp     `cmd:"" help:"Apply the steps that are missing."`
	Down   migrateDown   `cmd:"" help:"Take back the last steps. Data of dropped tables is lost."`
	Status migrateStatus `cmd:"" help:"Tell where the database stands."`
}

type (
	migrateUp   struct{}
	migrateDown struct {
		Steps int `arg:"" default:"1" help:"How many."`
	}
	migrateStatus struct{}
)

func (c *migrateUp) Run(ctx context.Context, all *cli) error {
	return all.Migrate.run(ctx, func(dsn string) error { return db.Migrate(ctx, dsn) })
}

func (c *migrateDown) Run(ctx context.Context, all *cli) error {
	return all.Migrate.run(ctx, func(dsn string) error { return db.MigrateDown(ctx, dsn, c.Steps) })
}

func (c *migrateStatus) Run(ctx context.Context, all *cli) error {
	return all.Migrate.run(ctx, func(string) error { return nil })
}

// run does one thing to the schema and tells where that led.
func (c *migrateCommand) run(ctx context.Context, do func(dsn string) error) error {
	d, err := joinDatabase(ctx, c.databaseFlags, quiet())
	if err != nil {
		return err
	}
	defer d.close(ctx)
	if err := do(d.url); err != nil {
		return err
	}
	st, err := db.Migrations(ctx, d.url)
	if err != nil {
		return err
	}
	fmt.Printf("The database is at version %d of %d.\n", st.Version, st.Latest)
	if st.Dirty {
		return fmt.Errorf("step %d failed half-way: repair the schema by hand, then set schema_migrations.dirty to false", st.Version)
	}
	return nil
}

type tokenCommand struct {
	Create tokenCreate `cmd:"" help:"Make a token and print it, alone, on standard output. It is shown only once."`
}

type tokenCreate struct {
	databaseFlags
	Role access.Role `required:"" enum:"RESEARCHER,OPERATOR,ADMIN" help:"What it may do: RESEARCHER, OPERATOR or ADMIN."`
	Name string      `required:"" help:"Whose it is."`
}

func (c *tokenCreate) Run(ctx context.Context) error {
	return c.with(ctx, func(d *db.DB) error {
		issued, err := service.IssueToken(ctx, d, c.Role, c.Name)
		if err == nil {
			fmt.Println(issued.Secret)
		}
		return err
	})
}

type importCommand struct {
	Fingerprints importFingerprints `cmd:"" help:"Load known block pages and blocking addresses, and use them from now on."`
}

type importFingerprints struct {
	databaseFlags
	From   string `arg:"" help:"A directory or a URL that has fingerprints_dns and fingerprints_http, as .csv or as .json."`
	Format string `enum:"auto,csv,json" default:"auto" help:"auto takes CSV where both are there: it is what is kept up to date."`
}

func (c *importFingerprints) Run(ctx context.Context) error {
	fmt.Fprintf(os.Stderr, "Reading fingerprints from %s.\n", c.From)
	all, err := c.read(ctx)
	if err != nil {
		return err
	}
	return c.with(ctx, func(d *db.DB) error {
		set, err := service.ImportFingerprints(ctx, d, c.From, all)
		if err == nil {
			fmt.Printf("Set %d is in use: %d fingerprints for DNS, %d for HTTP.\n", set.Version, set.DNS, set.HTTP)
		}
		return err
	})
}

// read takes the first format that is there.
func (c *importFingerprints) read(ctx context.Context) ([]measurement.Fingerprint, error) {
	formats := []string{"csv", "json"}
	if c.Format != "auto" {
		formats = []string{c.Format}
	}
	var failed error
	for _, format := range formats {
		dns, err := c.open(ctx, "fingerprints_dns."+format)
		if err != nil {
			failed = err
			continue
		}
		defer dns.Close()
		http, err := c.open(ctx, "fingerprints_http."+format)
		if err != nil {
			return nil, err
		}
		defer http.Close()
		if format == "json" {
			return measurement.ReadFingerprintsJSON(dns, http, measurement.DefaultTableSize)
		}
		return measurement.ReadFingerprintsCSV(dns, http, measurement.DefaultTableSize)
	}
	return nil, fmt.Errorf("no fingerprints in %s: %w", c.From, failed)
}

func (c *importFingerprints) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !strings.HasPrefix(c.From, "http://") && !strings.HasPrefix(c.From, "https://") {
		return os.Open(filepath.Join(c.From, name))
	}
	address, err := url.JoinPath(c.From, name)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fault.New(fault.NotFound, "%s answered %s.", address, res.Status)
	}
	return res.Body, nil
}
