package service

import (
	"context"
	"strconv"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/testlist"
)

// lists are what this process chooses from; version 0 is none.
type lists struct {
	version db.TestListVersion
	entries []testlist.Entry
	rules   []testlist.Rule
	pool    *testlist.Pool
}

// ImportTestLists makes lists those in use, for every process of this database. Whole means that these are all;
// otherwise lists of other countries stay as they are. It says how each list changed. Nothing is stored when it fails
// with INVALID, which is when these cannot be all lists by their size, unless forced.
func ImportTestLists(ctx context.Context, d *db.DB, source string, all []testlist.Entry, whole, forced bool) (v db.TestListVersion, changes []testlist.ListChange, err error) {
	err = d.Write(ctx, func(tx *db.Tx) error {
		before, _, err := latestLists(ctx, tx)
		if err != nil {
			return err
		}
		after := all
		if !whole {
			after = withOthers(before, all)
		}
		if err := testlist.DefaultSize.Check(len(before), len(after)); err != nil && !forced {
			return err
		}
		changes = testlist.Compare(before, after)
		if v, err = tx.InsertTestLists(ctx, source, after); err != nil {
			return err
		}
		body := events.ListsImported{Version: v.Version, Lists: len(v.Lists), Entries: v.Entries(), Source: source}
		tx.Append(events.Event{OccurredAt: tx.Now, Kind: events.TestListsImported, Payload: events.Payload(body)})
		return nil
	})
	return v, changes, err
}

// withOthers is what is imported, with the lists of other countries as they were.
func withOthers(before, imported []testlist.Entry) []testlist.Entry {
	replaced := map[country.Code]bool{}
	for _, e := range imported {
		replaced[e.Country] = true
	}
	after := imported[:len(imported):len(imported)]
	for _, e := range before {
		if !replaced[e.Country] {
			after = append(after, e)
		}
	}
	return after
}

// listReader is what both a DB and a Tx can do.
type listReader interface {
	LatestTestLists(context.Context) (db.TestListVersion, bool, error)
	TestListEntries(context.Context, int) ([]testlist.Entry, error)
}

func latestLists(ctx context.Context, r listReader) (entries []testlist.Entry, v db.TestListVersion, err error) {
	v, ok, err := r.LatestTestLists(ctx)
	if err == nil && ok {
		entries, err = r.TestListEntries(ctx, v.Version)
	}
	return entries, v, err
}

// loadLists swaps in the lists and rules in use. Choices that are being made finish with those that they
// began with.
func (s *Service) loadLists(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	was := s.lists.Load()
	v, ok, err := s.db.LatestTestLists(ctx)
	if err != nil {
		return err
	}
	l := &lists{version: v}
	switch {
	case was != nil && was.version.Version == v.Version:
		l.entries = was.entries
	case ok:
		if l.entries, err = s.db.TestListEntries(ctx, v.Version); err != nil {
			return err
		}
		s.log.Info("test lists loaded", "version", v.Version, "lists", len(v.Lists), "urls", len(l.entries))
	default:
		s.log.Warn("No test lists are loaded: probes are told to measure no URL. Import them with `vantage import testlists`.")
	}
	priorities, err := s.db.AllURLPriorities(ctx)
	if err != nil {
		return err
	}
	for _, p := range priorities {
		l.rules = append(l.rules, p.Rule)
	}
	l.pool = testlist.NewPool(l.entries, l.rules)
	s.lists.Store(l)
	s.counts.of(l)
	return nil
}

// URLs chooses what a probe should measure. ASN 0 counts what was measured from any network of the country.
func (s *Service) URLs(q testlist.Question, a network.ASN) []testlist.Choice {
	l := s.lists.Load()
	measured, done := s.counts.look(q.Country, a)
	defer done()
	return l.pool.Choose(q, measured)
}

// Measured tells how often URLs were measured lately in a country, from one network or, with ASN 0, from any.
func (s *Service) Measured(c country.Code, a network.ASN) func(url string) int64 {
	return func(url string) int64 {
		measured, done := s.counts.look(c, a)
		defer done()
		return measured(url)
	}
}

// TestLists are the lists and rules in use. They must not be changed.
func (s *Service) TestLists() (db.TestListVersion, []testlist.Entry, []testlist.Rule) {
	l := s.lists.Load()
	return l.version, l.entries, l.rules
}

// EditURLPriority makes, changes or deletes a rule: nil before makes one, nil after deletes it. Staff only. Before must be
// what the rule is now, so that nobody undoes what they have not seen: it fails with NOT_FOUND when there is no
// such rule, with CONFLICT when it has another priority or when there is a rule for those URLs already, and with INVALID, naming
// the field.
func (s *Service) EditURLPriority(ctx context.Context, p access.Principal, key string, before, after *testlist.Rule) (db.URLPriority, error) {
	if err := p.NeedStaff(); err != nil {
		return db.URLPriority{}, err
	}
	operation := "setUrlPriority"
	if after == nil {
		operation = "deleteUrlPriority"
	}
	c, err := newCall(p, operation, key, []any{before, after}, s.db.Now())
	if err != nil {
		return db.URLPriority{}, err
	}
	for name, r := range map[string]*testlist.Rule{"before": before, "after": after} {
		if r == nil {
			continue
		}
		if *r, err = r.Normal(); err != nil {
			f := fault.Of(err)
			return db.URLPriority{}, f.At("input." + name + "." + f.Field)
		}
	}
	if before == nil && after == nil {
		return db.URLPriority{}, fault.Field("input.after", "Say what the rule is to be, what it was, or both.")
	}
	made, err := once(ctx, s, c, func(tx *db.Tx) (db.URLPriority, error) { return editPriority(ctx, tx, p, before, after) })
	if err != nil {
		return made, err
	}
	return made, s.loadLists(ctx)
}

func editPriority(ctx context.Context, tx *db.Tx, p access.Principal, before, after *testlist.Rule) (now db.URLPriority, err error) {
	var old db.URLPriority
	change := events.PriorityChange{}
	action := "urlPriority.create"
	if before != nil {
		var found bool
		if old, found, err = tx.URLPriorityLike(ctx, *before); err != nil {
			return now, err
		}
		switch {
		case !found:
			return now, fault.New(fault.NotFound, "There is no such rule (%s).", testlist.RuleNotFound).At("input.before")
		case old.Priority != before.Priority:
			return now, fault.New(fault.Conflict, "The rule changed meanwhile: its priority is %d.", old.Priority).At("input.before.priority")
		}
		change.Before = told(old)
		action = "urlPriority.delete"
	}
	switch {
	case before == nil:
		now, err = tx.InsertURLPriority(ctx, *after)
	case after == nil:
		now, err = old, tx.DeleteURLPriority(ctx, old.ID)
	default:
		action = "urlPriority.update"
		now, err = tx.SaveURLPriority(ctx, old.ID, *after)
	}
	if fault.Is(err, fault.Conflict) {
		err = fault.New(fault.Conflict, "There is a rule for these URLs already (%s).", testlist.DuplicateRule).At("input.after")
	}
	if err != nil {
		return now, err
	}
	if after != nil {
		change.After = told(now)
	}
	tx.Append(events.Event{OccurredAt: tx.Now, Kind: events.URLPriorityChanged, Payload: events.Payload(change)})
	entry := db.AuditEntry{Actor: p.Name, Action: action, Subject: "upr_" + strconv.FormatInt(now.ID, 10)}
	if change.Before != nil { // a nil pointer in an interface would be stored as null, not as nothing
		entry.Before = change.Before
	}
	if change.After != nil {
		entry.After = change.After
	}
	return now, tx.Audit(ctx, entry)
}

func told(p db.URLPriority) *events.URLPriority {
	return &events.URLPriority{ID: p.ID, CategoryCode: p.CategoryCode, Country: p.Country, Domain: p.Domain, URL: p.URL, Priority: p.Priority}
}

// countEvery is how old the counts may be that choices are made by, but for countLag.
const (
	countEvery = 2 * time.Minute
	countLag   = 10 * time.Second // what a transaction may take from its instant to its commit
)

func (s *Service) countURLs(ctx context.Context) error {
	for {
		if err := s.CountURLs(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("measurements of URLs cannot be counted; the old counts are used on", "err", err)
		}
		if !sleep(ctx, countEvery) {
			return nil
		}
	}
}
