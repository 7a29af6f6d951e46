package service

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
)

// A FingerprintTrial says on which bodies a set of fingerprints is tried: at most Limit, where that is not 0, those in the
// spool first, then those that were archived last.
type FingerprintTrial struct {
	Since, Until         *time.Time // of receipt
	Countries, TestNames []string
	Limit                int

	Progress func(Rescored) // unless nil
}

// A FingerprintsTried is what a set would change: the measurements that it judges otherwise than the set in use does, and
// by name in how many measurements each fingerprint that differs in this was found.
type FingerprintsTried struct {
	Rescored
	InUse   int // the number of the set; 0 is none
	Matches map[string]Found
}

// Found is in how many measurements a fingerprint was found: by the set in use, and by the one that is tried.
type Found struct{ Before, After int }

// A trial scores each body twice.
type trial struct {
	candidate *measurement.Fingerprints
	limit     int

	mu      sync.Mutex
	scored  int
	matches map[string]Found
}

var errEnough = errors.New("enough bodies were tried")

// TryFingerprints says what a set of fingerprints would change, and changes nothing. It fails with INVALID when the
// set breaks a rule.
func (s *Service) TryFingerprints(ctx context.Context, all []measurement.Fingerprint, f FingerprintTrial) (FingerprintsTried, error) {
	compiled, err := measurement.Compile(all)
	if err != nil {
		return FingerprintsTried{}, err
	}
	t := &trial{candidate: compiled, limit: f.Limit, matches: map[string]Found{}}
	run := &rescorer{
		s: s, set: s.fingerprints.Load(), trial: t, sum: Rescored{Changes: map[Change]int{}},
		r: Rescoring{DryRun: true, Progress: f.Progress},
		q: db.RescoreQuery{
			Since: f.Since, Until: f.Until, Countries: f.Countries, TestNames: f.TestNames, All: true, Scorer: math.MaxInt32, Fingerprints: math.MaxInt32,
		},
	}
	if err = run.all(ctx); errors.Is(err, errEnough) {
		err = nil
	}
	for name, n := range t.matches {
		if n.Before == n.After {
			delete(t.matches, name)
		}
	}
	return FingerprintsTried{run.sum, run.set.version, t.matches}, err
}

// score judges a body by both sets.
func (t *trial) score(r *rescorer, m *measurement.Measurement, uid measurement.ID, at time.Time) comparison {
	before, after := measurement.Score(m, at, r.set.compiled), measurement.Score(m, at, t.candidate)
	t.mu.Lock()
	for name := range names(before) {
		n := t.matches[name]
		n.Before++
		t.matches[name] = n
	}
	for name := range names(after) {
		n := t.matches[name]
		n.After++
		t.matches[name] = n
	}
	t.mu.Unlock()
	return r.compare(db.AsStored(judged(m, uid, before, 0)), judged(m, uid, after, 0))
}

// names are the fingerprints that were found.
func names(v measurement.Verdict) map[string]bool {
	all := map[string]bool{}
	for _, f := range v.Matches {
		all[f.Name] = true
	}
	for _, e := range v.Evidence {
		if e.Fingerprint != "" {
			all[e.Fingerprint] = true
		}
	}
	return all
}

// take reports whether one more is wanted.
func (t *trial) take() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.enough() {
		return false
	}
	t.scored++
	return true
}

// enough is for who holds the lock.
func (t *trial) enough() bool { return t.limit > 0 && t.scored >= t.limit }

// over fails with errEnough when no more are wanted.
func (t *trial) over() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.enough() {
		return errEnough
	}
	return nil
}
