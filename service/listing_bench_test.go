package service

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/db"
)

// BenchmarkListing reads pages of 50 rows of 200,000 measurements of a month.
func BenchmarkListing(b *testing.B) {
	w := durable(b)
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(ctx) })
	exec := func(sql string) {
		if _, err := conn.Exec(ctx, sql); err != nil {
			b.Fatal(err)
		}
	}
	exec(`insert into measurement (sort_at, received_at, country, uid, started_at, test_started_at, asn, report_id, input, domain,
			test_name, test_version, platform, architecture, software_name, software_version, engine_name, engine_version,
			test_helper_address, test_helper_type, verified, anomaly, confirmed, failure, blocking_type, scores, scoring_problem,
			scorer_version, provenance, body_size, body_sha256, eligible_for_anomaly_scoring, max_tier, outcome, evidence)
		select at, at + interval '3s', cc, to_char(at + interval '3s', 'YYYYMMDDHH24MISS.US') || '_' || cc || '_' || replace(test, '_', '') || '_' || substr(md5(n::text), 1, 16),
			at, at, 1000 + (n * 7919) % 500, 'report' || n / 20, 'https://www.site' || site || '.example/', 'www.site' || site || '.example',
			test, '0.4.3', 'linux', 'arm64', 'ooniprobe-android', '3.' || n % 9, 'ooniprobe-engine', '3.' || n % 9,
			'', '', 'u', n % 11 = 0, n % 97 = 0, n % 53 = 0, case when n % 11 = 0 then 'dns' else '' end,
			'{"blocking_general":0.0,"blocking_global":0.0,"blocking_country":0.0,"blocking_isp":0.0,"blocking_local":0.0}', '',
			'1', 'ANONYMOUS', 6000, decode(md5(n::text) || md5('x' || n), 'hex'), false, 'NONE', 'OK', '[]'
		from (select n, timestamptz '2026-03-01 UTC' + n * interval '12960ms' as at,
				(n * 31) % 1700 as site,
				case when n % 2000 = 0 then 'AD' else (array['IT', 'US', 'DE', 'IR', 'RU', 'BR', 'FR', 'IN', 'ID', 'GB'])[1 + (hashint4(n) & 7)] end as cc,
				case when n % 3000 = 0 then 'torsf' when n % 20 = 0 then 'telegram' else 'web_connectivity' end as test
			from generate_series(1, 200000) n) g`)
	exec("insert into test_list_version (imported_at, source) values (now(), 'bench')")
	exec(`insert into test_list_entry (version, country, url, category_code, category_description, source, notes)
		select 1, case when n % 20 = 0 then 'ZZ' else (array['IT', 'US', 'DE', 'IR', 'RU', 'BR', 'FR', 'IN', 'ID', 'GB', 'CN', 'TR'])[1 + n % 12] end,
			'https://www.site' || n || '.example/', case when n > 39000 then 'XED' when n % 500 = 0 then 'GMB' else 'NEWS' end, '', '', ''
		from generate_series(0, 40000) n`)
	exec("vacuum analyze measurement, test_list_entry, test_list_version")
	since, until := start, start.AddDate(0, 0, 30)
	month := db.MeasurementQuery{Since: &since, Until: &until}
	with := func(change func(*db.MeasurementQuery)) db.MeasurementQuery {
		q := month
		change(&q)
		return q
	}
	page1000 := []string{start.Add(150_000 * 12960 * time.Millisecond).Format(time.RFC3339Nano), "x"}
	yes := true
	for _, c := range []struct {
		name  string
		query db.MeasurementQuery
		page  db.Page
		count bool
	}{
		{"page 1", month, db.Page{N: 51}, false},
		{"page 1000", month, db.Page{N: 51, After: page1000}, false},
		{"offset 10000", month, db.Page{N: 51, Skip: 10_000}, false},
		{"country", with(func(q *db.MeasurementQuery) { q.Countries = []string{"IT"} }), db.Page{N: 51, After: page1000}, false},
		{"rare country", with(func(q *db.MeasurementQuery) { q.Countries = []string{"AD"} }), db.Page{N: 51, After: page1000}, false},
		{"two countries", with(func(q *db.MeasurementQuery) { q.Countries = []string{"AD", "ZW"} }), db.Page{N: 51, After: page1000}, false},
		{"network", with(func(q *db.MeasurementQuery) { q.ASNs = []int64{1007} }), db.Page{N: 51}, false},
		{"country and network", with(func(q *db.MeasurementQuery) { q.Countries, q.ASNs = []string{"IT"}, []int64{1007} }), db.Page{N: 51}, false},
		{"rare test", with(func(q *db.MeasurementQuery) { q.TestNames = []string{"torsf"} }), db.Page{N: 51}, false},
		{"domain and country", with(func(q *db.MeasurementQuery) { q.Domains, q.Countries = []string{"www.site31.example"}, []string{"IT"} }), db.Page{N: 51}, false},
		{"input", with(func(q *db.MeasurementQuery) { q.Inputs = []string{"https://www.site31.example/"} }), db.Page{N: 51}, false},
		{"category", with(func(q *db.MeasurementQuery) { q.Categories = []string{"NEWS"} }), db.Page{N: 51}, false},
		{"rare category", with(func(q *db.MeasurementQuery) { q.Categories = []string{"GMB"} }), db.Page{N: 51}, false},
		{"category that nobody measured", with(func(q *db.MeasurementQuery) { q.Categories = []string{"XED"} }), db.Page{N: 51}, false},
		{"category and country", with(func(q *db.MeasurementQuery) { q.Categories, q.Countries = []string{"GMB"}, []string{"IT"} }), db.Page{N: 51}, false},
		{"confirmed in a rare country", with(func(q *db.MeasurementQuery) { q.Countries, q.Confirmed = []string{"AD"}, &yes }), db.Page{N: 51}, false},
		{"no such version", with(func(q *db.MeasurementQuery) { q.SoftwareVersions = []string{"x"} }), db.Page{N: 51}, false},
		{"count of all", month, db.Page{}, true},
		{"count of a country", with(func(q *db.MeasurementQuery) { q.Countries = []string{"IT"} }), db.Page{}, true},
		{"count of a category", with(func(q *db.MeasurementQuery) { q.Categories = []string{"NEWS"} }), db.Page{}, true},
		{"count of a version", with(func(q *db.MeasurementQuery) { q.SoftwareVersions = []string{"3.1"} }), db.Page{}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				if err := w.db.ReadWithin(ctx, 10*time.Second, func(v db.View) error {
					if c.count {
						_, err := v.MeasurementCount(ctx, c.query)
						return err
					}
					rows, err := v.Measurements(ctx, c.query, db.ByStartedAt, true, c.page)
					n = len(rows)
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n), "rows")
			against(b, 20*time.Millisecond)
		})
	}
}
