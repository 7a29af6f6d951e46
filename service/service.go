// Package service answers: what does it take to register a probe, to take a heartbeat, to
// submit a measurement? One file per flow: load, ask a rule, save, announce.
//
// There is no SQL here and no arithmetic: rules decide, package db stores. Everything that
// changes the world goes through this package, whoever asked for it and over whatever
// protocol; reads do not. It imports the rules, events and db. The transports and jobs import it.
package service

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/alert"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/notify"
	"github.com/openvantage/vantage/probe"
)

// Settings are what an operator decides about the flows.
type Settings struct {
	Rules         probe.Rules
	Health        probe.HealthRules
	Causes        probe.CauseRules
	Workflows     probe.WorkflowRules
	Coverage      coverage.Rules
	Alerts        alert.Rules
	Limits        measurement.Limits
	AutoActivate  bool // a registered probe is ACTIVE at once
	OpenCollector bool // anybody may submit measurements without a token
	// Canaries are probes of the type CANARY that tell our own silence from that of others.
	Canaries     []probe.ID
	SweepEvery   time.Duration   // how often deadlines are looked at; they are exact all the same
	ReactEvery   time.Duration   // how late reactors' timers may be, which keep their exact instants all the same; 0 is a second
	DownAfter    time.Duration   // a time without any sweep that is longer is an outage of ours; 0 is a minute
	ThirdParties ThirdParties    // who is asked what others measure; nil: nobody
	Notify       *notify.Sender  // nil sends everything nowhere
	Archive      *archive.Bucket // nil: bodies stay in the spool
	Collector    int             // its number in the names of packs, which no other server may have in the same store
}

// ThirdParties tell what others than our own probes measured on a network. Count may take long, and
// is never called within a transaction. It fails when nobody answers.
type ThirdParties interface {
	Count(ctx context.Context, a network.ASN, since, until time.Time) (probe.ThirdPartyCount, error)
}

// A Meter hears how the flows fare. Its methods are called from many goroutines.
type Meter interface {
	// Heartbeat tells how long one took from arrival to commit, and the code of its failure
	// or "OK".
	Heartbeat(outcome string, took time.Duration)
	// Submission tells what became of one body.
	Submission(outcome string)
	// Refused tells that a queue was full: "heartbeats" or "submissions".
	Refused(queue string)
	// Scored tells how long parsing and scoring one body took.
	Scored(took time.Duration)
	// Relayed tells how old events were when this process could tell its subscribers.
	Relayed(lag time.Duration)
	// Packed tells that a pack was archived, "OK", or could not be, "FAILED".
	Packed(outcome string)
	// Spooled tells how many bytes wait to be archived.
	Spooled(bytes int64)
	// Damaged tells that something in the archive is not what it was, or missing.
	Damaged()
}

// A Service runs the flows of one server process. All methods may be called at the same time.
type Service struct {
	db       *db.DB
	settings Settings
	log      *slog.Logger
	meter    Meter

	tail      *events.Tail[events.Event]
	beats     *events.Tail[events.Heartbeat]
	listeners atomic.Int32 // how many follow heartbeats
	caughtUp  atomic.Int64 // when the log was last read to its end, in microseconds

	loading      sync.Mutex // one load at a time of the four below: else what was read first might be stored last
	fingerprints atomic.Pointer[loaded]
	monitored    atomic.Pointer[map[country.Code]bool]
	releases     atomic.Pointer[map[probe.Type]string] // the newest of each type
	lists        atomic.Pointer[lists]
	counts       *urlCounts
	principals   *expirable.LRU[access.Hash, access.Principal]
	loginKey     access.LoginKey

	heartbeats  *batcher[*beat]
	submissions *batcher[*submission]

	hearers []hearer
	packing func(step string) error // set by tests alone
}

// Sizes of the tails: what a subscriber may fall behind before it reads the stored log.
const (
	tailSize = 8192
	beatSize = 4096
)

// How much waits for the database at most, and how much of it shares a transaction. A queue of
// submissions takes a second at the pace that is wanted, and a tenth of the memory; all probes of a
// large network may send a heartbeat in the same second, after we were away.
var (
	heartbeatLimits  = queueLimits{batch: 256, batchBytes: 4 << 20, queue: 16_384, queueBytes: 32 << 20}
	submissionLimits = queueLimits{batch: 256, batchBytes: 8 << 20, queue: 2048, queueBytes: 32 << 20}
)

// DefaultRules are the numbers of the rule book.
func DefaultRules() Settings {
	return Settings{
		Rules: probe.Default(), Health: probe.DefaultHealth(), Causes: probe.DefaultCause(), Workflows: probe.DefaultWorkflow(),
		Coverage: coverage.Default(), Alerts: alert.Default(),
	}
}

// New makes the flows ready: it loads the fingerprints in use and finds the end of the log.
// The flows work from then on; Run keeps subscribers told.
func New(ctx context.Context, d *db.DB, s Settings, m Meter, log *slog.Logger) (*Service, error) {
	head, err := d.LogHead(ctx)
	if err != nil {
		return nil, err
	}
	s.DownAfter = cmp.Or(s.DownAfter, serverDownAfter)
	if s.Notify == nil {
		if s.Notify, err = notify.New(notify.Settings{}); err != nil {
			return nil, err
		}
	}
	s.ReactEvery = cmp.Or(s.ReactEvery, time.Second)
	v := &Service{
		db: d, settings: s, log: log, meter: m,
		tail:  events.NewTail(tailSize, head.Seq, func(e events.Event) int64 { return e.Seq }),
		beats: events.NewTail(beatSize, head.Seq, func(h events.Heartbeat) int64 { return h.Seq }),
	}
	v.counts = newURLCounts()
	v.principals = expirable.NewLRU[access.Hash, access.Principal](authRemembered, nil, authMemory)
	v.caughtUp.Store(d.Now().UnixMicro())
	v.heartbeats = newBatcher(1, heartbeatLimits, func() { m.Refused("heartbeats") }, v.takeHeartbeats)
	v.submissions = newBatcher(2, submissionLimits, func() { m.Refused("submissions") }, v.takeSubmissions)
	v.hearers = v.allHearers()
	for _, load := range []func(context.Context) error{v.loadMonitored, v.loadReleases, v.loadFingerprints, v.loadLists, v.loadLoginKey} {
		if err := load(ctx); err != nil {
			return nil, err
		}
	}
	return v, nil
}
