package db

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

// A Conduct is what one measurement says of the probe that made it. MeasuredAt is what
// probe.MeasuredAt makes of the times.
type Conduct struct {
	ProbeID    probe.ID
	ReceivedAt time.Time
	MeasuredAt time.Time
	measurement.Conduct
}

// InsertConduct stores what measurements say of their probes, when the transaction commits.
func (t *Tx) InsertConduct(all []Conduct) {
	n := len(all)
	if n == 0 {
		return
	}
	received, measured, ids := make([]time.Time, n), make([]time.Time, n), make([]string, n)
	failed, unreached := make([]bool, n), make([]bool, n)
	names, addresses := make([][]byte, n), make([][]byte, n)
	for i, c := range all {
		received[i], measured[i], ids[i], failed[i], unreached[i] = c.ReceivedAt, c.MeasuredAt, string(c.ProbeID), c.Failed, c.ControlUnreached
		names[i], addresses[i] = packed(c.Names), packed(c.Addresses)
	}
	t.pending.Queue(`insert into probe_conduct (received_at, measured_at, probe_id, failed, control_unreached, names, addresses)
		select * from unnest($1::timestamptz[], $2::timestamptz[], $3::text[], $4::boolean[], $5::boolean[], $6::bytea[], $7::bytea[])`,
		received, measured, ids, failed, unreached, names, addresses)
}

func packed(hashes []uint64) []byte {
	b := make([]byte, 0, 8*len(hashes))
	for _, h := range hashes {
		b = binary.BigEndian.AppendUint64(b, h)
	}
	return b
}

// distinct collects hashes. It is tidied whenever it has doubled, so that it stays about as
// large as what it holds.
type distinct struct {
	hashes []uint64
	tidy   int // so many are sorted and distinct
}

func (d *distinct) add(hashes []uint64) {
	d.hashes = append(d.hashes, hashes...)
	if len(d.hashes) > 2*d.tidy+64 {
		d.count()
	}
}

func (d *distinct) count() int64 {
	slices.Sort(d.hashes)
	d.hashes = slices.Compact(d.hashes)
	d.tidy = len(d.hashes)
	return int64(d.tidy)
}

// A sorter deals hashes out to probes. Rows come in the order of time, each of another probe: it
// collects many before it sorts them by probe, so that the memory of each is fetched once for many
// hashes; see BenchmarkQuality.
type sorter struct {
	probes []distinct
	at     []uint32 // whose hash that is, by place in probes
	hashes []uint64
	ends   []int32
	sorted []uint64
}

// sortAt is how many hashes are collected: some megabytes.
const sortAt = 1 << 18

func newSorter(probes int) *sorter {
	return &sorter{probes: make([]distinct, probes), ends: make([]int32, probes+1)}
}

// add takes packed hashes of the probe at that place.
func (s *sorter) add(at uint32, packed []byte) {
	for ; len(packed) >= 8; packed = packed[8:] {
		s.at, s.hashes = append(s.at, at), append(s.hashes, binary.BigEndian.Uint64(packed))
	}
	if len(s.hashes) >= sortAt {
		s.deal()
	}
}

// deal is a counting sort.
func (s *sorter) deal() {
	clear(s.ends)
	for _, at := range s.at {
		s.ends[at+1]++
	}
	for i := range s.probes {
		s.ends[i+1] += s.ends[i]
	}
	s.sorted = slices.Grow(s.sorted[:0], len(s.hashes))[:len(s.hashes)]
	for i, at := range s.at { // moves each beginning to its end
		s.sorted[s.ends[at]] = s.hashes[i]
		s.ends[at]++
	}
	began := int32(0)
	for i, end := range s.ends[:len(s.probes)] {
		if end > began {
			s.probes[i].add(s.sorted[began:end])
		}
		began = end
	}
	s.at, s.hashes = s.at[:0], s.hashes[:0]
}

// counts are how many different hashes each probe has.
func (s *sorter) counts() iter.Seq2[int, int64] {
	s.deal()
	return func(yield func(int, int64) bool) {
		for i := range s.probes {
			if !yield(i, s.probes[i].count()) {
				return
			}
		}
	}
}

// A Sampled is a sample of a probe that waits to be scored.
type Sampled struct {
	ProbeID probe.ID
	probe.Sample
}

// Samples returns what the measurements of each ACTIVE or WARMUP probe amount to that were made
// after the one instant, and received up to the other, which is the snapshot's. Probes that
// became so later are left out. It reads each measurement of the window once and counts here
// what is distinct (docs/decisions/014).
func (t *Tx) Samples(ctx context.Context, after, through time.Time) ([]Sampled, error) {
	all, err := list(ctx, t.reader, func(row pgx.CollectableRow) (s Sampled, err error) {
		err = row.Scan(&s.ProbeID, &s.Type, &s.ActiveSince)
		s.ActiveSince, s.At = s.ActiveSince.UTC(), through
		return s, err
	}, `select id, type, since from (
			select p.id, p.type, coalesce((select w.since from probe_span w where w.probe_id = p.id and w.kind = 'WARMUP'
				and p.lifecycle = 'ACTIVE' and w.until = p.lifecycle_since order by w.since limit 1), p.lifecycle_since) as since
			from probe p where p.lifecycle in ('ACTIVE', 'WARMUP')) x
		where since <= $1 order by id`, through)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if err := t.exec(ctx, "set local statement_timeout = '5min'"); err != nil {
		return nil, err
	}
	return all, t.readConduct(ctx, all, after, through)
}

// readConduct looks at the bytes of each row as they come: there are millions, and scanning them
// into values would take most of the time.
func (t *Tx) readConduct(ctx context.Context, all []Sampled, after, through time.Time) error {
	places := make(map[probe.ID]uint32, len(all))
	for i := range all {
		places[all[i].ProbeID] = uint32(i)
	}
	names, addresses := newSorter(len(all)), newSorter(len(all))
	rows, err := t.q.Query(ctx, `select probe_id, failed, control_unreached, names, addresses from probe_conduct
		where received_at > $1 and received_at <= $2 and measured_at > $1`, after, through)
	if err != nil {
		return translate(err)
	}
	defer rows.Close()
	for rows.Next() {
		v := rows.RawValues()
		at, ok := places[probe.ID(v[0])]
		if !ok {
			continue
		}
		sample := &all[at]
		sample.Measurements++
		if v[1][0] != 0 {
			sample.Errors++
		}
		if v[2][0] == 0 {
			sample.Reached++
		}
		if len(v[4]) > 0 {
			sample.Resolved++
		}
		names.add(at, v[3])
		addresses.add(at, v[4])
	}
	if err := rows.Err(); err != nil {
		return translate(err)
	}
	for i, n := range names.counts() {
		all[i].Domains = n
	}
	for i, n := range addresses.counts() {
		all[i].Addresses = n
	}
	return nil
}

// LastSnapshot returns the last instant at which qualities were taken.
func (r reader) LastSnapshot(ctx context.Context) (time.Time, error) {
	return one(ctx, r, func(row pgx.CollectableRow) (at time.Time, err error) {
		err = row.Scan(&at)
		return at.UTC(), err
	}, "select at from snapshot")
}

// BeginSnapshot reports whether the snapshot of that instant is this transaction's to take: nobody
// took it or a later one, and all of the last one is scored.
func (t *Tx) BeginSnapshot(ctx context.Context, at time.Time) (bool, error) {
	tag, err := t.q.Exec(ctx, "update snapshot set at = $1 where at < $1 and not exists (select from snapshot_probe)", at)
	return err == nil && tag.RowsAffected() == 1, translate(err)
}

// columns splits a list of columns.
func columns(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \n\t", r) })
}

const sampleColumns = "at, probe_id, type, active_since, measurements, errors, reached, resolved, addresses, domains"

func (s *Sampled) row() []any {
	return []any{
		s.At, string(s.ProbeID), string(s.Type), s.ActiveSince, s.Measurements, s.Errors, s.Reached, s.Resolved, s.Addresses, s.Domains,
	}
}

func (s *Sampled) targets() []any {
	return []any{
		&s.At, &s.ProbeID, &s.Type, &s.ActiveSince, &s.Measurements, &s.Errors, &s.Reached, &s.Resolved, &s.Addresses, &s.Domains,
	}
}

// InsertSamples stores samples that are to be scored.
func (t *Tx) InsertSamples(ctx context.Context, all []Sampled) error {
	_, err := t.pgx.CopyFrom(ctx, pgx.Identifier{"snapshot_probe"}, columns(sampleColumns),
		pgx.CopyFromSlice(len(all), func(i int) ([]any, error) { return all[i].row(), nil }))
	return translate(err)
}

// TakeSamples removes and returns up to n samples that are to be scored, and passes over those
// that somebody else is scoring.
func (t *Tx) TakeSamples(ctx context.Context, n int) ([]Sampled, error) {
	return list(ctx, t.reader, func(row pgx.CollectableRow) (s Sampled, err error) {
		err = row.Scan(s.targets()...)
		s.At, s.ActiveSince = s.At.UTC(), s.ActiveSince.UTC()
		return s, err
	}, `delete from snapshot_probe where (at, probe_id) in
		(select at, probe_id from snapshot_probe order by at, probe_id limit $1 for update skip locked) returning `+sampleColumns, n)
}

// A Quality is a probe's scores of one snapshot by both formulas, with all that they were made
// from. Parts are from 0 to 1, and nil where there was nothing to divide.
type Quality struct {
	probe.Sample
	ProbeID       probe.ID
	Country       country.Code
	Rate          *float64
	OK            *float64
	Control       *float64
	First         Graded // by V1
	Second        Graded // by V2
	VolumeOutlier bool
	RuleVersion   int
}

// A Graded is what only one formula says.
type Graded struct {
	Score     *int
	Diversity *float64
}

// By is what the formula says.
func (q Quality) By(f probe.Formula) Graded {
	if f == probe.V2 {
		return q.Second
	}
	return q.First
}

const qualityColumns = sampleColumns + `, country, rate, ok, control, first_score, first_diversity, second_score, second_diversity,
	volume_outlier, rule_version`

// InsertQualities stores scores. CONFLICT when one was stored before.
func (t *Tx) InsertQualities(ctx context.Context, all []Quality) error {
	_, err := t.pgx.CopyFrom(ctx, pgx.Identifier{"quality"}, columns(qualityColumns),
		pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
			q := all[i]
			s := Sampled{ProbeID: q.ProbeID, Sample: q.Sample}
			return append(s.row(), string(q.Country), q.Rate, q.OK, q.Control, q.First.Score, q.First.Diversity, q.Second.Score, q.Second.Diversity,
				q.VolumeOutlier, q.RuleVersion), nil
		}))
	return translate(err)
}

func scanQuality(row pgx.CollectableRow) (q Quality, err error) {
	s := Sampled{}
	err = row.Scan(append(s.targets(), &q.Country, &q.Rate, &q.OK, &q.Control, &q.First.Score, &q.First.Diversity,
		&q.Second.Score, &q.Second.Diversity, &q.VolumeOutlier, &q.RuleVersion)...)
	s.At, s.ActiveSince = s.At.UTC(), s.ActiveSince.UTC()
	q.ProbeID, q.Sample = s.ProbeID, s.Sample
	return q, err
}

// Qualities returns up to n scores of a probe that were taken in the time, oldest first.
func (r reader) Qualities(ctx context.Context, id probe.ID, since, until time.Time, n int) ([]Quality, error) {
	return list(ctx, r, scanQuality, "select "+qualityColumns+" from quality where probe_id = $1 and at >= $2 and at < $3 order by at limit $4", id, since, until, n)
}

// SaveQualities stores, for probes that this transaction has locked, their last scores, how far
// they are trusted by them, and what they reached of control servers.
func (t *Tx) SaveQualities(ctx context.Context, all []Quality, standings []probe.Standing) error {
	n := len(all)
	ids, reached, measurements := make([]string, n), make([]int64, n), make([]int64, n)
	for i, q := range all {
		ids[i], reached[i], measurements[i] = string(q.ProbeID), q.Reached, q.Measurements
	}
	return t.exec(ctx, `update probe p set quality = u.quality, standing = u.standing, control_reached = u.reached,
			control_measurements = u.measurements
		from unnest($1::text[], $2::json[], $3::jsonb[], $4::bigint[], $5::bigint[]) u (id, quality, standing, reached, measurements)
		where p.id = u.id`, ids, all, standings, reached, measurements)
}
