package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
	"github.com/openvantage/vantage/testlist"
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
	Testlists    importTestLists    `cmd:"" help:"Load the lists of URLs that probes are to measure, and use them from now on."`
	Archive      importArchive      `cmd:"" help:"Load measurement bodies from an archive in the established network's layout, scored and dated as of when they were received."`
}

type importFingerprints struct {
	databaseFlags
	fingerprintSource
}

// A fingerprintSource is where a set of fingerprints is read from.
type fingerprintSource struct {
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
func (c fingerprintSource) read(ctx context.Context) ([]measurement.Fingerprint, error) {
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

func (c fingerprintSource) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !isAddress(c.From) {
		return open(ctx, filepath.Join(c.From, name))
	}
	address, err := url.JoinPath(c.From, name)
	if err != nil {
		return nil, err
	}
	return open(ctx, address)
}

// open reads a file, or what is at a URL. NOT_FOUND when nothing is at the URL.
func open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !isAddress(name) {
		return os.Open(name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res.Body, nil
	case http.StatusNotFound:
		err = fault.New(fault.NotFound, "There is nothing at %s.", name)
	default:
		err = fault.New(fault.Unavailable, "%s answered %s.", name, res.Status)
	}
	_ = res.Body.Close()
	return nil, err
}

type importTestLists struct {
	databaseFlags
	From        []string `arg:"" help:"A directory of Citizen Lab's format, which has all lists; or files such as ir.csv, which replace those lists alone; or the URL of either."`
	SkipBadRows bool     `help:"Leave rows out that break a rule, and name them, instead of importing nothing."`
	Force       bool     `help:"Believe lists of any size, and that more than half of all URLs are gone."`
}

func (c *importTestLists) Run(ctx context.Context) error {
	var all []testlist.Entry
	whole, bad, files := false, 0, 0
	for _, from := range c.From {
		names, err := c.files(from)
		if err != nil {
			return err
		}
		whole = whole || !strings.HasSuffix(from, ".csv")
		for _, name := range names {
			entries, problems, err := c.read(ctx, name)
			if fault.Is(err, fault.NotFound) && len(names) > 1 {
				continue // not every country has a list
			}
			if err != nil {
				return err
			}
			files++
			fmt.Fprintf(os.Stderr, "\r%d lists, %d URLs: %-12s", files, len(all)+len(entries), path.Base(name))
			for _, p := range problems {
				fmt.Fprintf(os.Stderr, "\n%s\n", fault.Of(p).Message)
			}
			bad += len(problems)
			all = append(all, entries...)
		}
	}
	fmt.Fprintln(os.Stderr)
	if bad > 0 && !c.SkipBadRows {
		return fmt.Errorf("%d rows break a rule, so nothing was imported; --skip-bad-rows leaves them out", bad)
	}
	return c.with(ctx, func(d *db.DB) error {
		v, changes, err := service.ImportTestLists(ctx, d, strings.Join(c.From, " "), all, whole, c.Force)
		if err != nil {
			return err
		}
		for _, l := range changes {
			if l.Added+l.Removed+l.Changed > 0 {
				fmt.Printf("%s: %d URLs (%d added, %d removed, %d changed)\n", l.Country, l.After, l.Added, l.Removed, l.Changed)
			}
		}
		fmt.Printf("Version %d is in use: %d URLs in %d lists.\n", v.Version, v.Entries(), len(v.Lists))
		return nil
	})
}

func isAddress(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// files are the lists in a directory, or what is one itself. At a URL, which cannot be listed, they are those that there
// may be.
func (c *importTestLists) files(from string) (names []string, err error) {
	switch {
	case strings.HasSuffix(from, ".csv"):
		return []string{from}, nil
	case isAddress(from):
		for name := range country.All() {
			file, err := url.JoinPath(from, strings.ToLower(string(name.Code))+".csv")
			if err != nil {
				return nil, err
			}
			names = append(names, file)
		}
		file, err := url.JoinPath(from, "global.csv")
		return append(names, file), err
	}
	found, err := os.ReadDir(from)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if _, ok := testlist.FileCountry(f.Name()); ok {
			names = append(names, filepath.Join(from, f.Name()))
		}
	}
	if names == nil {
		err = fmt.Errorf("no lists in %s: they are named global.csv, ir.csv and so on", from)
	}
	return names, err
}

func (c *importTestLists) read(ctx context.Context, name string) ([]testlist.Entry, []error, error) {
	base := filepath.Base(name)
	if isAddress(name) {
		base = path.Base(name)
	}
	of, ok := testlist.FileCountry(base)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no name of a list: they are named global.csv, ir.csv and so on", base)
	}
	f, err := open(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return testlist.Read(base, of, f, testlist.DefaultSize.Max)
}
