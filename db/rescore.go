package db

import (
	"bytes"
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

// A RescoreQuery says which measurements are to be rescored by a scorer and a set of fingerprints: those whose
// verdict is of an older one, or with All every one. What a newer one judged is never among them. Every nil
// condition holds; times are of receipt.
type RescoreQuery struct {
	Since, Until         *time.Time
	Countries, TestNames []string
	Scorer, Fingerprints int
	All                  bool
}

// where holds for rows of measurement m.
func (q RescoreQuery) where() *where {
	w := &where{}
	w.since("m.received_at", q.Since)
	w.until("m.received_at", q.Until)
	w.in("m.country", q.Countries)
	w.in("m.test_name", q.TestNames)
	w.add("m.scorer_version::int <= $", q.Scorer)
	w.add("coalesce(m.fingerprint_version, 0) <= $", q.Fingerprints)
	if !q.All {
		n := len(w.args)
		w.conds = append(w.conds, "(m.scorer_version::int, coalesce(m.fingerprint_version, 0)) <> ("+dollar(n-1)+", "+dollar(n)+")")
	}
	return w
}

// packs are those that may hold such measurements.
func (q RescoreQuery) packs() PackQuery {
	p := PackQuery{Until: q.Until, Countries: q.Countries, TestNames: q.TestNames}
	if q.Since != nil {
		hour := q.Since.Truncate(time.Hour)
		p.Since = &hour
	}
	return p
}

// RescorePacks returns a page of the packs that may hold measurements of the query. Page keys are ids.
func (r reader) RescorePacks(ctx context.Context, q RescoreQuery, p Page) ([]Pack, error) {
	return r.Packs(ctx, q.packs(), p)
}

// RescoreSize is how many packs may hold measurements of the query, and how many bytes of posts they are.
func (r reader) RescoreSize(ctx context.Context, q RescoreQuery) (packs int, bytes int64, err error) {
	p := q.packs()
	w := &where{}
	p.conditions(w)
	err = r.q.QueryRow(ctx, "select count(*), coalesce(sum(posts_size), 0)::bigint from pack"+w.String(), w.args...).Scan(&packs, &bytes)
	return packs, bytes, translate(err)
}

// RescorePacked are the bodies in a pack whose measurements are to be rescored, in the pack's order.
func (r reader) RescorePacked(ctx context.Context, q RescoreQuery, p Pack) ([]archive.Entry, error) {
	w := q.where()
	for _, table := range []string{"b", "m"} { // of each, for its partitions
		w.add(table+".received_at >= $", p.Pile.Hour)
		w.add(table+".received_at < $", p.Pile.Hour.Add(time.Hour))
		w.add(table+".country = $", p.Pile.Country)
	}
	w.add("b.pack = $", p.ID)
	return list(ctx, r, func(row pgx.CollectableRow) (e archive.Entry, err error) {
		var sum []byte
		err = row.Scan(&e.UID, &e.PostOffset, &e.PostLength, &e.Size, &sum)
		copy(e.SHA256[:], sum)
		return e, err
	}, `select b.uid, b.post_offset, b.post_length, b.body_size, b.body_sha256
		from packed_body b join measurement m using (received_at, country, uid)`+w.String()+" order by b.line_number", w.args...)
}

// RescoreSpooled are the first n bodies of the spool after a uid, which may be empty, whose measurements are
// to be rescored.
func (r reader) RescoreSpooled(ctx context.Context, q RescoreQuery, after measurement.ID, n int) ([]SpooledBody, error) {
	w := q.where()
	w.since("b.received_at", q.Since)
	w.until("b.received_at", q.Until)
	if at, cc, ok := after.Split(); ok {
		w.since("m.received_at", &at)
		w.args = append(w.args, at, cc, after)
		k := len(w.args)
		w.conds = append(w.conds, "(b.received_at, b.country, b.uid) > ("+dollar(k-2)+", "+dollar(k-1)+", "+dollar(k)+")")
	}
	w.args = append(w.args, n)
	return list(ctx, r, pgx.RowToStructByPos[SpooledBody], `select b.uid, octet_length(b.data)
		from body b join measurement m using (received_at, country, uid)`+w.String()+
		" order by b.received_at, b.country, b.uid limit "+dollar(len(w.args)), w.args...)
}

// A StoredVerdict is what is said of a measurement, and what the rollup counts it by. Other columns are not read, nor is
// the evidence: reading it costs more than all else.
type StoredVerdict struct {
	Measurement
	evidence []byte
}

// AsStored is how the measurement would be stored.
func AsStored(m Measurement) StoredVerdict { return StoredVerdict{m, evidenceJSON(m.Evidence)} }

// SaysSo reports whether the evidence is this.
func (v StoredVerdict) SaysSo(all []measurement.Evidence) bool {
	return bytes.Equal(v.evidence, evidenceJSON(all))
}

const storedVerdicts = `select received_at, country, uid, started_at, asn, test_name, domain, ` + verdictColumns + `
	from measurement where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))`

func scanStoredVerdict(row pgx.CollectableRow) (v StoredVerdict, err error) {
	var started *time.Time
	var asn int64
	var fingerprints *int
	err = row.Scan(&v.ReceivedAt, &v.Country, &v.UID, &started, &asn, &v.TestName, &v.Domain, &v.Anomaly, &v.Confirmed, &v.Failure,
		&v.BlockingType, (*[]byte)(&v.Scores), &v.ScoringProblem, &v.ScorerVersion, &fingerprints, &v.Outcome, &v.evidence)
	v.ReceivedAt, v.StartedAt, v.ASN = v.ReceivedAt.UTC(), zero(started), network.ASN(asn)
	if fingerprints != nil {
		v.FingerprintVersion = *fingerprints
	}
	return v, err
}

// StoredVerdicts returns those of the measurements that exist.
func (r reader) StoredVerdicts(ctx context.Context, uids []measurement.ID) ([]StoredVerdict, error) {
	at, cc, ids := splitAll(uids)
	return list(ctx, r, scanStoredVerdict, storedVerdicts, at, cc, ids)
}

// LockVerdicts is StoredVerdicts, and keeps others from changing them. Rows are locked in the order of their uids, whatever
// the order of uids is.
func (t *Tx) LockVerdicts(ctx context.Context, uids []measurement.ID) ([]StoredVerdict, error) {
	at, cc, ids := splitAll(uids)
	return list(ctx, t.reader, scanStoredVerdict, storedVerdicts+" order by received_at, country, uid for update", at, cc, ids)
}

// SaveVersions has measurements, which are locked, say by which versions their verdicts hold when the transaction commits.
func (t *Tx) SaveVersions(uids []measurement.ID, scorer string, fingerprints int) {
	if len(uids) == 0 {
		return
	}
	at, cc, ids := splitAll(uids)
	t.pending.Queue(`update measurement m set scorer_version = $4, fingerprint_version = nullif($5::int, 0)
		from unnest($1::timestamptz[], $2::text[], $3::text[]) u (received_at, country, uid)
		where m.received_at = u.received_at and m.country = u.country and m.uid = u.uid`, at, cc, ids, scorer, fingerprints)
}

// ReplaceVerdicts has measurements, which are locked, say what these do about their verdicts when the transaction
// commits. The earlier verdicts of those for which keep is true are kept.
func (t *Tx) ReplaceVerdicts(all []Measurement, keep []bool) {
	n := len(all)
	if n == 0 {
		return
	}
	at, cc, uids, blocking, scores := make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	anomaly, confirmed, failure := make([]bool, n), make([]bool, n), make([]bool, n)
	problem, scorer, outcomes, evidence := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	fingerprints := make([]*int, n)
	var keptAt []time.Time
	var keptCC, kept []string
	for i := range all {
		m := &all[i]
		at[i], cc[i], uids[i], blocking[i], scores[i] = m.ReceivedAt, string(m.Country), string(m.UID), m.BlockingType, string(m.Scores)
		anomaly[i], confirmed[i], failure[i] = m.Anomaly, m.Confirmed, m.Failure
		problem[i], scorer[i], outcomes[i], evidence[i] = m.ScoringProblem, m.ScorerVersion, string(m.Outcome), string(evidenceJSON(m.Evidence))
		if m.FingerprintVersion != 0 {
			fingerprints[i] = &m.FingerprintVersion
		}
		if keep[i] {
			keptAt, keptCC, kept = append(keptAt, m.ReceivedAt), append(keptCC, string(m.Country)), append(kept, string(m.UID))
		}
	}
	if kept != nil {
		t.pending.Queue(`insert into verdict (received_at, country, uid, replaced_at, `+verdictColumns+`)
			select received_at, country, uid, $4, `+verdictColumns+` from measurement
			where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))`, keptAt, keptCC, kept, t.Now)
	}
	t.pending.Queue(`update measurement m set anomaly = u.anomaly, confirmed = u.confirmed, failure = u.failure, blocking_type = u.blocking_type,
			scores = u.scores::json, scoring_problem = u.scoring_problem, scorer_version = u.scorer_version,
			fingerprint_version = u.fingerprint_version, outcome = u.outcome, evidence = u.evidence::json
		from unnest($1::timestamptz[], $2::text[], $3::text[], $4::bool[], $5::bool[], $6::bool[], $7::text[], $8::text[], $9::text[],
			$10::text[], $11::int[], $12::text[], $13::text[]) u (received_at, country, uid, `+verdictColumns+`)
		where m.received_at = u.received_at and m.country = u.country and m.uid = u.uid`,
		at, cc, uids, anomaly, confirmed, failure, blocking, scores, problem, scorer, fingerprints, outcomes, evidence)
}

const verdictColumns = `anomaly, confirmed, failure, blocking_type, scores, scoring_problem, scorer_version, fingerprint_version, outcome, evidence`

// A Verdict is what a measurement was said to show until ReplacedAt.
type Verdict struct {
	Measurement // its verdict alone, and which one it is
	ReplacedAt  time.Time
}

// EarlierVerdicts are the last n verdicts of each of the measurements that were replaced, the latest first.
func (r reader) EarlierVerdicts(ctx context.Context, uids []measurement.ID, n int) (map[measurement.ID][]Verdict, error) {
	at, cc, ids := splitAll(uids)
	rows, err := list(ctx, r, func(row pgx.CollectableRow) (v Verdict, err error) {
		var fingerprints *int
		err = row.Scan(&v.ReceivedAt, &v.Country, &v.UID, &v.ReplacedAt, &v.Anomaly, &v.Confirmed, &v.Failure, &v.BlockingType, &v.Scores,
			&v.ScoringProblem, &v.ScorerVersion, &fingerprints, &v.Outcome, &v.Evidence)
		v.ReceivedAt, v.ReplacedAt = v.ReceivedAt.UTC(), v.ReplacedAt.UTC()
		if fingerprints != nil {
			v.FingerprintVersion = *fingerprints
		}
		return v, err
	}, `select v.* from unnest($1::timestamptz[], $2::text[], $3::text[]) k (received_at, country, uid), lateral (
			select received_at, country, uid, replaced_at, `+verdictColumns+` from verdict
			where received_at = k.received_at and country = k.country and uid = k.uid order by replaced_at desc limit $4) v`, at, cc, ids, n)
	out := map[measurement.ID][]Verdict{}
	for _, v := range rows {
		out[v.UID] = append(out[v.UID], v)
	}
	return out, err
}
