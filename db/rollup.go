package db

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
)

// A RollupKey says which measurements a row of the rollup counts. Month is the first instant of the
// month of receipt and Day the day of Measurement.SortAt, both in UTC.
type RollupKey struct {
	Month        time.Time
	Country      country.Code
	Day          time.Time
	ASN          network.ASN
	TestName     string
	Domain       string
	BlockingType string
}

// A RollupChange is by how much the counters of a row differ. OK, Anomaly, Confirmed and Failure
// are disjoint and add up to Measurements.
type RollupChange struct {
	RollupKey
	Measurements, OK, Anomaly, Confirmed, Failure int64
}

// rollupText is how many characters of a text a key holds: more would not fit into an index. No
// host name has as many.
const rollupText = 255

// Counted is what the measurement adds to the rollup, n times; -1 takes it out.
func (m *Measurement) Counted(n int64) RollupChange {
	at, day := m.ReceivedAt.UTC(), m.SortAt().UTC()
	c := RollupChange{RollupKey: RollupKey{
		Month:   time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC),
		Day:     time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, time.UTC),
		Country: m.Country, ASN: m.ASN, TestName: clip(m.TestName), Domain: clip(m.Domain), BlockingType: clip(m.BlockingType),
	}, Measurements: n}
	switch {
	case m.Failure:
		c.Failure = n
	case m.Confirmed:
		c.Confirmed = n
	case m.Anomaly:
		c.Anomaly = n
	default:
		c.OK = n
	}
	return c
}

func clip(s string) string {
	if len(s) <= rollupText {
		return s
	}
	n := 0
	for i := range s {
		if n == rollupText {
			return s[:i]
		}
		n++
	}
	return s
}

// MoveRollup adds signed differences to the rollup when the transaction commits, by one statement
// for all that the transaction moves. Whoever writes measurements, or changes what they say, moves
// the rollup by as much.
func (t *Tx) MoveRollup(changes ...RollupChange) { t.rollup = append(t.rollup, changes...) }

// sum adds up changes of one row, leaves out those that change nothing, and sorts the others, so that
// transactions lock rows in one order.
func sum(changes []RollupChange) []RollupChange {
	byKey := make(map[RollupKey]RollupChange, len(changes))
	for _, c := range changes {
		s := byKey[c.RollupKey]
		s.RollupKey = c.RollupKey
		s.Measurements += c.Measurements
		s.OK += c.OK
		s.Anomaly += c.Anomaly
		s.Confirmed += c.Confirmed
		s.Failure += c.Failure
		byKey[c.RollupKey] = s
	}
	out := make([]RollupChange, 0, len(byKey))
	for k, c := range byKey {
		if c != (RollupChange{RollupKey: k}) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b RollupChange) int {
		return cmp.Or(strings.Compare(string(a.Country), string(b.Country)), a.Day.Compare(b.Day), cmp.Compare(a.ASN, b.ASN),
			strings.Compare(a.TestName, b.TestName), strings.Compare(a.Domain, b.Domain),
			strings.Compare(a.BlockingType, b.BlockingType), a.Month.Compare(b.Month))
	})
	return out
}

const rollupColumns = `month, country, day, asn, test_name, domain, blocking_type,
	measurement_count, ok_count, anomaly_count, confirmed_count, failure_count`

func (t *Tx) queueRollup(b *pgx.Batch) {
	changes := sum(t.rollup)
	n := len(changes)
	if n == 0 {
		return
	}
	months, cc, days, asn := make([]time.Time, n), make([]string, n), make([]time.Time, n), make([]int64, n)
	tests, domains, blocking := make([]string, n), make([]string, n), make([]string, n)
	var counts [5][]int64
	for i := range counts {
		counts[i] = make([]int64, n)
	}
	for i, c := range changes {
		months[i], cc[i], days[i], asn[i] = c.Month, string(c.Country), c.Day, int64(c.ASN)
		tests[i], domains[i], blocking[i] = c.TestName, c.Domain, c.BlockingType
		counts[0][i], counts[1][i], counts[2][i], counts[3][i], counts[4][i] = c.Measurements, c.OK, c.Anomaly, c.Confirmed, c.Failure
	}
	b.Queue("insert into measurement_rollup as r ("+rollupColumns+`)
		select * from unnest($1::timestamptz[], $2::text[], $3::date[], $4::bigint[], $5::text[], $6::text[], $7::text[],
			$8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
		on conflict (country, day, asn, test_name, domain, blocking_type, month) do update set
			measurement_count = r.measurement_count + excluded.measurement_count, ok_count = r.ok_count + excluded.ok_count,
			anomaly_count = r.anomaly_count + excluded.anomaly_count, confirmed_count = r.confirmed_count + excluded.confirmed_count,
			failure_count = r.failure_count + excluded.failure_count`,
		months, cc, days, asn, tests, domains, blocking, counts[0], counts[1], counts[2], counts[3], counts[4])
}

// RollupDrift counts all measurements and returns what MoveRollup would have to add for the rollup
// to say the same: nothing, unless measurements were changed without it. Months whose
// measurements retention has dropped keep their counts and are left out. It reads every
// measurement.
func (r reader) RollupDrift(ctx context.Context) ([]RollupChange, error) {
	return list(ctx, r, func(row pgx.CollectableRow) (c RollupChange, err error) {
		var asn int64
		err = row.Scan(&c.Month, &c.Country, &c.Day, &asn, &c.TestName, &c.Domain, &c.BlockingType,
			&c.Measurements, &c.OK, &c.Anomaly, &c.Confirmed, &c.Failure)
		c.Month, c.Day, c.ASN = c.Month.UTC(), c.Day.UTC(), network.ASN(asn)
		return c, err
	}, "select * from ("+`select month, country, day, asn, test_name, domain, blocking_type, sum(n) n, sum(ok) ok,
			sum(anomaly) anomaly, sum(confirmed) confirmed, sum(failure) failure
		from (
			select date_trunc('month', received_at at time zone 'UTC') at time zone 'UTC' as month, country,
				(sort_at at time zone 'UTC')::date as day, asn, left(test_name, $1) as test_name, left(domain, $1) as domain,
				left(blocking_type, $1) as blocking_type, 1::bigint as n, (o = 'OK')::int::bigint as ok, (o = 'ANOMALY')::int::bigint as anomaly,
				(o = 'CONFIRMED')::int::bigint as confirmed, (o = 'FAILURE')::int::bigint as failure
			from (select *, `+outcome+` as o from measurement) m
			union all
			select month, country, day, asn, test_name, domain, blocking_type, -measurement_count, -ok_count, -anomaly_count,
				-confirmed_count, -failure_count from measurement_rollup
			where to_regclass('measurement_' || to_char(month at time zone 'UTC', 'YYYYMMDD')) is not null) x
		group by 1, 2, 3, 4, 5, 6, 7) d
		where (n, ok, anomaly, confirmed, failure) <> (0, 0, 0, 0, 0) order by country, day, asn, test_name, domain, blocking_type, month`, rollupText)
}
