package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/server"
	"github.com/openvantage/vantage/service"
	"github.com/openvantage/vantage/simulation"
)

type serveCommand struct {
	server.Config
	Demo bool `help:"Also play a small simulated network, and say what to try."`
}

// Run serves until it is told to stop.
func (c *serveCommand) Run(ctx context.Context) error {
	log := logger(c.Config)
	if c.ClockRate != 1 {
		log.Warn("the clock runs fast: this is a simulation", "rate", c.ClockRate)
	}
	d, err := openDatabase(ctx, databaseFlags{c.DatabaseURL, c.DataDir}, log)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	if c.ArchiveURL, err = d.archiveURL(c.ArchiveURL); err != nil {
		return err
	}
	s, err := server.New(ctx, c.Config, d.url, version, log)
	if err != nil {
		return err
	}
	log.Info("serving", "version", version, "api", s.URL(), "graphiql", s.URL()+"/graphiql", "heartbeats", s.HeartbeatURL())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Serve(ctx) })
	g.Go(func() error {
		select {
		case <-d.gone():
			return d.server.Err()
		case <-ctx.Done():
			return nil
		}
	})
	if c.Demo {
		g.Go(func() error { return demo(ctx, s) })
	}
	return g.Wait()
}

// demo plays the network of `make run` and says what to look at.
func demo(ctx context.Context, s *server.Server) error {
	issued, err := service.IssueToken(ctx, s.DB(), access.Operator, "demo")
	if err != nil {
		return err
	}
	fmt.Printf(`
Vantage is running.
  Home      %[1]s/
  GraphiQL  %[1]s/graphiql   press the arrow on any tab; "StateChanges" and "Scored" are live
  Schema    %[1]s/schema.graphql
  Metrics   %[1]s/metrics

An operator's token for this session, for the Headers tab of GraphiQL:
  {"authorization": "Bearer %[2]s"}

Try also:
  curl -s %[1]s/graphql -H 'content-type: application/json' -d '{"query":"{ service { figures { probeCount onlineProbeCount } } }"}'
  %[4]s import fingerprints DIR    to recognise block pages
  %[4]s submit FILE…               to send measurements of your own

%[3]s

`, s.URL(), issued.Secret, simulation.DemoText, os.Args[0])
	c := simulation.Demo()
	c.BaseURL, c.HeartbeatURL, c.OperatorToken = s.URL(), s.HeartbeatURL(), issued.Secret
	c.Progress, c.ProgressEvery = func(r simulation.Report) { fmt.Println(r) }, time.Minute
	if dir, err := os.UserCacheDir(); err == nil && os.MkdirAll(filepath.Join(dir, "vantage"), 0o700) == nil {
		c.StatePath = filepath.Join(dir, "vantage", "demo.json") // so that the next demo plays the same probes
	}
	_, err = simulation.Run(ctx, c)
	return err
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// clientFlags name a server for commands that talk to one.
type clientFlags struct {
	URL   string `name:"url" env:"VANTAGE_URL" default:"http://127.0.0.1:8080" help:"The server."`
	Token string `env:"VANTAGE_TOKEN" help:"A bearer token."`
}

type submitCommand struct {
	clientFlags
	Files    []string `arg:"" help:"JSON or JSON-lines files, compressed with gzip or not; - is standard input."`
	Backfill bool     `help:"Date each body by its own start, and have it judged as of then. Needs an OPERATOR's token."`
	Workers  int      `default:"4" help:"Requests at the same time."`
	Quiet    bool     `short:"q" help:"Say nothing but the outcome."`
}

// Run submits the files and fails when any body did.
func (c *submitCommand) Run(ctx context.Context) error {
	o := client.SubmitOptions{Backfill: c.Backfill, Workers: c.Workers}
	if !c.Quiet {
		o.Progress = os.Stderr
	}
	sum, err := client.New(client.Options{BaseURL: c.URL, Token: c.Token}).SubmitFiles(ctx, c.Files, o)
	fmt.Println(sum)
	if err == nil && sum.Failed > 0 {
		err = fmt.Errorf("%d bodies were refused", sum.Failed)
	}
	return err
}
