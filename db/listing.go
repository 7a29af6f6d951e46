package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// ReadWithin is Read with less patience: a statement that takes longer than limit, which is whole milliseconds,
// fails with UNAVAILABLE. Each statement is planned for its own values: what is rare is found by its index, and what
// is not by the order of the list.
func (d *DB) ReadWithin(ctx context.Context, limit time.Duration, fn func(View) error) error {
	o := pgx.TxOptions{BeginQuery: "begin isolation level repeatable read read only; set local plan_cache_mode = force_custom_plan;" +
		" set local statement_timeout = " + milliseconds(limit)}
	return translate(pgx.BeginTxFunc(ctx, d.pool, o, func(t pgx.Tx) error { return fn(View{reader{t}}) }))
}

// MeasurementCount is how many measurements match, exactly. It costs a look at each of them: call it within
// ReadWithin, and never for a page that shows by itself how many there are.
func (r reader) MeasurementCount(ctx context.Context, q MeasurementQuery) (int64, error) {
	w := q.where()
	return one(ctx, r, pgx.RowTo[int64], "select count(*) from measurement m"+w.String(), w.args...)
}

// MeasurementOf is the measurement of a report that has this input, "" for none. Where several have, it is the one that
// was received first, so that the answer stays the same when others come, and more is true. NOT_FOUND when there is none.
func (r reader) MeasurementOf(ctx context.Context, reportID, input string) (m Measurement, more bool, err error) {
	rows, err := r.Measurements(ctx, MeasurementQuery{ReportID: &reportID, Inputs: []string{input}}, ByReceivedAt, false, Page{N: 2})
	if err == nil && len(rows) == 0 {
		err = fault.New(fault.NotFound, "There is no measurement with this report_id and input.")
	}
	if err != nil {
		return m, false, err
	}
	return rows[0], len(rows) > 1, nil
}

// latestEntries are those of the lists in use.
const latestEntries = "from test_list_entry where version = (select max(version) from test_list_version)"

// categories holds for nil and otherwise wants inputs that the list of the world or of the country has in one of them. The
// lists are read once and hashed, which PostgreSQL does because of the or; with exists it looks into an index for each
// measurement, which takes ten times as long where few match.
func (w *where) categories(codes []string) {
	if codes == nil {
		return
	}
	w.args = append(w.args, codes)
	entries := latestEntries + " and category_code = any(" + dollar(len(w.args)) + ")"
	w.conds = append(w.conds, "(input in (select url "+entries+" and country = 'ZZ') or (input, country) in (select url, country "+entries+"))")
}

// Category is the code of the input's category in the lists in use, "" when it is in none: the list of the country comes
// before that of the world.
func (r reader) Category(ctx context.Context, input string, c country.Code) (string, error) {
	code, err := one(ctx, r, pgx.RowTo[string], "select category_code "+latestEntries+` and url = $1 and country in ('ZZ', $2)
		order by country = 'ZZ' limit 1`, input, c)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	return code, err
}

// domainsOf are the domains that measurements of the inputs have, and nil where one of them does not say: the input has
// no index, and its domain has.
func domainsOf(inputs []string) []string {
	var domains []string
	for _, in := range inputs {
		d, ok := measurement.DomainOf(in)
		if !ok {
			return nil
		}
		domains = append(domains, d)
	}
	return domains
}
