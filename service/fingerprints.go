package service

import (
	"context"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/measurement"
)

// loaded is a compiled set of fingerprints; version 0 is none.
type loaded struct {
	version  int
	compiled *measurement.Fingerprints
}

// ImportFingerprints makes a set the one in use, for every process of this database. The
// caller has read it through the sanity gate. It fails with INVALID when a pattern is empty or
// its place is unknown.
func ImportFingerprints(ctx context.Context, d *db.DB, source string, all []measurement.Fingerprint) (set db.FingerprintSet, err error) {
	if _, err := measurement.Compile(all); err != nil {
		return set, err
	}
	err = d.Write(ctx, func(tx *db.Tx) error {
		if set, err = tx.InsertFingerprints(ctx, source, all); err != nil {
			return err
		}
		tx.Append(events.Event{
			OccurredAt: tx.Now, Kind: events.FingerprintsImported,
			Payload: events.Payload(events.Imported{Version: set.Version, DNS: set.DNS, HTTP: set.HTTP, Source: source}),
		})
		return nil
	})
	return set, err
}

// loadFingerprints swaps in the latest set. Submissions that are being scored finish with the
// set that they began with; each row says which that was.
func (s *Service) loadFingerprints(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	set, ok, err := s.db.LatestFingerprints(ctx)
	if err != nil {
		return err
	}
	if !ok {
		s.fingerprints.Store(&loaded{})
		s.log.Warn("No fingerprints are loaded: no block page will be recognised. Import them with `vantage import fingerprints`.")
		return nil
	}
	if now := s.fingerprints.Load(); now != nil && now.version == set.Version {
		return nil
	}
	all, err := s.db.Fingerprints(ctx, set.Version)
	if err != nil {
		return err
	}
	compiled, err := measurement.Compile(all)
	if err != nil {
		return err
	}
	s.fingerprints.Store(&loaded{version: set.Version, compiled: compiled})
	s.log.Info("fingerprints loaded", "version", set.Version, "dns", set.DNS, "http", set.HTTP)
	return nil
}
