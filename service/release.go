package service

import (
	"context"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/probe"
)

// RecordRelease records that a version of the program of probes of a type was released; a zero
// instant is now. Staff only. It fails with CONFLICT when it is recorded already, and with INVALID, naming the field.
func (s *Service) RecordRelease(ctx context.Context, p access.Principal, key string, t probe.Type, version string, at time.Time) (db.Release, error) {
	if err := p.NeedStaff(); err != nil {
		return db.Release{}, err
	}
	rank, err := probe.ParseVersion(version)
	if err != nil {
		return db.Release{}, fault.Of(err).At("input.version")
	}
	c, err := newCall(p, "recordRelease", key, []any{t, version, at}, s.db.Now())
	if err != nil {
		return db.Release{}, err
	}
	made, err := once(ctx, s, c, func(tx *db.Tx) (db.Release, error) {
		made := db.Release{Type: t, Version: version, PublishedAt: at.UTC().Truncate(time.Microsecond)}
		if at.IsZero() {
			made.PublishedAt = tx.Now
		}
		if made.PublishedAt.After(tx.Now) {
			return made, fault.Field("input.publishedAt", "This instant is yet to come.")
		}
		if made.ID, err = tx.InsertRelease(ctx, made, rank); err != nil {
			if fault.Is(err, fault.Conflict) {
				err = fault.New(fault.Conflict, "This version is recorded already.").At("input.version")
			}
			return made, err
		}
		body := events.Release{ID: made.ID, Type: t, Version: version, PublishedAt: made.PublishedAt}
		tx.Append(events.Event{OccurredAt: tx.Now, Kind: events.ReleaseRecorded, Payload: events.Payload(body)})
		return made, tx.Audit(ctx, db.AuditEntry{Actor: p.Name, Action: "release.record", After: body})
	})
	if err != nil {
		return made, err
	}
	return made, s.loadReleases(ctx)
}

// loadReleases reads what the newest version for each type of probe is.
func (s *Service) loadReleases(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	latest, err := s.db.LatestReleases(ctx)
	if err == nil {
		s.releases.Store(&latest)
	}
	return err
}
