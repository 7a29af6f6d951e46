package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// A FingerprintSet is one import of fingerprints, without the fingerprints.
type FingerprintSet struct {
	Version    int
	ImportedAt time.Time
	Source     string
	DNS, HTTP  int
}

// LatestFingerprints tells which set is in use; false when none was imported.
func (r reader) LatestFingerprints(ctx context.Context) (FingerprintSet, bool, error) {
	s, err := one(ctx, r, func(row pgx.CollectableRow) (s FingerprintSet, err error) {
		err = row.Scan(&s.Version, &s.ImportedAt, &s.Source, &s.DNS, &s.HTTP)
		s.ImportedAt = s.ImportedAt.UTC()
		return s, err
	}, "select version, imported_at, source, dns_count, http_count from fingerprint_set order by version desc limit 1")
	if fault.Is(err, fault.NotFound) {
		return FingerprintSet{}, false, nil
	}
	return s, err == nil, err
}

// Fingerprints returns the fingerprints of a set in the order in which they were imported,
// which is the order of matches.
func (r reader) Fingerprints(ctx context.Context, version int) ([]measurement.Fingerprint, error) {
	return list(ctx, r, func(row pgx.CollectableRow) (f measurement.Fingerprint, err error) {
		var countries []string
		err = row.Scan(&f.Name, &f.Scope, &f.OtherNames, &f.LocationFound, &f.PatternType, &f.Pattern, &f.ConfidenceNoFP, &countries)
		for _, c := range countries {
			f.ExpectedCountries = append(f.ExpectedCountries, country.Code(c))
		}
		return f, err
	}, `select name, scope, other_names, location_found, pattern_type, pattern, confidence_no_fp, expected_countries
		from fingerprint where version = $1 order by position`, version)
}

// InsertFingerprints stores a set and makes it the latest.
func (t *Tx) InsertFingerprints(ctx context.Context, source string, all []measurement.Fingerprint) (FingerprintSet, error) {
	s := FingerprintSet{ImportedAt: t.Now, Source: source}
	rows := make([][]any, len(all))
	for i, f := range all {
		if f.LocationFound == "dns" {
			s.DNS++
		} else {
			s.HTTP++
		}
		countries := make([]string, len(f.ExpectedCountries))
		for j, c := range f.ExpectedCountries {
			countries[j] = string(c)
		}
		rows[i] = []any{0, i, f.Name, f.Scope, f.OtherNames, f.LocationFound, f.PatternType, f.Pattern, f.ConfidenceNoFP, countries}
	}
	var err error
	s.Version, err = one(ctx, t.reader, pgx.RowTo[int], `insert into fingerprint_set (imported_at, source, dns_count, http_count)
		values ($1, $2, $3, $4) returning version`, s.ImportedAt, s.Source, s.DNS, s.HTTP)
	if err != nil {
		return s, err
	}
	for _, row := range rows {
		row[0] = s.Version
	}
	_, err = t.pgx.CopyFrom(ctx, pgx.Identifier{"fingerprint"}, []string{
		"version", "position", "name", "scope", "other_names",
		"location_found", "pattern_type", "pattern", "confidence_no_fp", "expected_countries",
	}, pgx.CopyFromRows(rows))
	return s, translate(err)
}
