package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

// A Faulty is something wrong with a measurement, beside its verdict. Country and ASN are the
// measurement's own.
type Faulty struct {
	measurement.Fault
	ID      int64
	UID     measurement.ID
	Country country.Code
	ASN     network.ASN
	FoundAt time.Time
}

// InsertFaulty records what is wrong with measurements, when the transaction commits. What is
// recorded of the instant already is left as it is.
func (t *Tx) InsertFaulty(all ...Faulty) {
	n := len(all)
	if n == 0 {
		return
	}
	found, cc, keys, kinds := make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n)
	uids, asn, seen, details := make([]string, n), make([]int64, n), make([]string, n), make([]string, n)
	for i, f := range all {
		keys[i] = string(f.Kind) + " " + string(f.UID)
		found[i], cc[i], kinds[i], uids[i] = f.FoundAt, string(f.Country), string(f.Kind), string(f.UID)
		asn[i], seen[i], details[i] = int64(f.ASN), string(f.ObservedCountry), string(f.Details)
	}
	t.pending.Queue("insert into faulty_measurement ("+faultyColumns+`)
		select * from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::json[])
		on conflict do nothing`, found, cc, keys, kinds, uids, asn, seen, details)
}

// InsertVolumeFaults records, for each minute that ended within the time, who sent at least so many
// measurements in it: one network's probes of one engine, program and system. It may be asked again and
// in any process; a minute is found once. It returns how many are new.
func (t *Tx) InsertVolumeFaults(ctx context.Context, since, until time.Time, least int) (int64, error) {
	tag, err := t.q.Exec(ctx, "insert into faulty_measurement ("+faultyColumns+`)
		select minute + interval '1 minute', country, $3 || ' ' || md5(row(asn, engine_name, software_name, platform, architecture)::text),
			$3, uid, asn, '', json_build_object('measurements', n, 'engine', engine_name, 'software', software_name,
				'platform', platform, 'architecture', architecture)
		from (select date_trunc('minute', received_at) as minute, country, asn, engine_name, software_name, platform, architecture,
				min(uid) as uid, count(*) as n
			from measurement where received_at >= $1 and received_at < $2
			group by 1, 2, 3, 4, 5, 6, 7 having count(*) >= $4) x
		on conflict do nothing`, since.UTC().Truncate(time.Minute), until.UTC().Truncate(time.Minute), string(measurement.Volume), least)
	return tag.RowsAffected(), translate(err)
}

const (
	faultyColumns = "found_at, country, key, kind, uid, asn, observed_country, details"
	faultySelect  = "select id, found_at, country, kind, uid, asn, observed_country, details from faulty_measurement"
)

func scanFaulty(row pgx.CollectableRow) (f Faulty, err error) {
	var asn int64
	var details json.RawMessage
	err = row.Scan(&f.ID, &f.FoundAt, &f.Country, &f.Kind, &f.UID, &asn, &f.ObservedCountry, &details)
	f.FoundAt, f.ASN, f.Details = f.FoundAt.UTC(), network.ASN(asn), details
	return f, err
}

// A FaultyQuery says which faults; every nil condition holds.
type FaultyQuery struct {
	Since, Until *time.Time // found
	Kinds        []string
	Countries    []string
	ASNs         []int64
	UIDs         []string
}

// FaultyMeasurements returns a page of faults, the last found first; its keys are numbers.
func (r reader) FaultyMeasurements(ctx context.Context, q FaultyQuery, p Page) ([]Faulty, error) {
	w := &where{}
	w.since("found_at", q.Since)
	w.until("found_at", q.Until)
	w.in("kind", q.Kinds)
	w.in("country", q.Countries)
	w.inNumbers("asn", q.ASNs)
	w.in("uid", q.UIDs)
	sql := faultySelect + w.page(p, order{column: "id", cast: "bigint", desc: true})
	rows, err := list(ctx, r, scanFaulty, sql, w.args...)
	return inOrder(rows, p), err
}

// Faulty returns the fault of that number. NOT_FOUND when there is none.
func (r reader) Faulty(ctx context.Context, id int64) (Faulty, error) {
	return one(ctx, r, scanFaulty, faultySelect+" where id = $1", id)
}

// FaultsOf returns what is wrong with each of the measurements.
func (r reader) FaultsOf(ctx context.Context, uids []measurement.ID) (map[measurement.ID][]Faulty, error) {
	rows, err := list(ctx, r, scanFaulty, faultySelect+" where uid = any($1) order by id", uids)
	out := make(map[measurement.ID][]Faulty, len(rows))
	for _, f := range rows {
		out[f.UID] = append(out[f.UID], f)
	}
	return out, err
}
