// Vantage is the server in the middle of a network of probes that measure internet
// censorship: it takes their heartbeats and measurements, judges both, and tells everyone who
// asks or subscribes. This package parses the command line, calls, and exits; everything else
// is elsewhere.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/openvantage/vantage/server"
)

// version is set when the program is built.
var version = "dev"

// cli is the command line.
type cli struct {
	Serve        serveCommand        `cmd:"" help:"Run the server."`
	Migrate      migrateCommand      `cmd:"" help:"Bring the database to another version of the schema, or tell where it stands."`
	Import       importCommand       `cmd:"" help:"Load data that the server works with."`
	Token        tokenCommand        `cmd:"" help:"Make API tokens."`
	Archive      archiveCommand      `cmd:"" help:"Look after the archive of bodies."`
	Rescore      rescoreCommand      `cmd:"" help:"Judge stored measurements again, by the rules of this program and the fingerprints in use."`
	Fingerprints fingerprintsCommand `cmd:"" help:"Look after fingerprints, the known block pages and blocking addresses."`
	Submit       submitCommand       `cmd:"" help:"Send measurement files to a server."`
	Canary       canaryCommand       `cmd:"" help:"Be a canary: send heartbeats from outside the probe countries, so that the server can tell its own silence from that of others."`
	Simulate     simulateCommand     `cmd:"" help:"Be a network of probes for a server, with faults to order."`
	Replay       replayCommand       `cmd:"" help:"Try other numbers of the rules on what happened, and list what would have been decided otherwise."`

	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	var c cli
	parser := kong.Must(&c, kong.Name("vantage"), kong.UsageOnError(), kong.Vars{"version": version},
		kong.Description("A GraphQL server for a network of internet censorship probes.\n\n"+
			"Start with `vantage serve --demo`: a server with its own database and a small simulated network."))
	command, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	if err := run(command); err != nil {
		fmt.Fprintln(os.Stderr, "vantage:", err)
		os.Exit(1)
	}
}

// run runs the command until it is done or the process is told to stop, which is no error.
func run(command *kong.Context) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// logger writes to standard error: for people on a terminal, JSON for machines.
func logger(c server.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	format := c.LogFormat
	if format == "auto" {
		format = "json"
		if st, err := os.Stderr.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			format = "text"
		}
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
