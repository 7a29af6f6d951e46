package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// A Probe is a stored probe with what is known of its health, and Peers: how many ACTIVE
// probes that were ever seen share its country and network, itself included. The privacy rule
// needs it.
type Probe struct {
	probe.Probe
	Health
	Peers int

	// MustUpdate is known of probes that LockHeard returned: a workflow deals with a crash loop.
	MustUpdate bool
}

// peers counts what Probe.Peers says, for the row p.
const peers = `(select count(*) from probe q where q.country = p.country and q.asn = p.asn
	and q.lifecycle = 'ACTIVE' and q.last_heartbeat_at is not null)`

const probeColumns = `p.id, p.display_name, p.country, p.asn, p.type, p.contact, p.registered_at, p.software_version,
	p.uptime_seconds, p.queue_depth, p.last_measurement_at, p.last_heartbeat_at, p.lifecycle, p.lifecycle_since,
	p.liveness, p.liveness_since, p.settled, p.transitions, p.flapping_since, p.online_since, p.offline_since,
	p.state, p.state_since, p.retired_notice_at, p.last_change_at`

// probeSelect is what scanProbe reads.
const probeSelect = probeColumns + ", " + healthColumns + ", " + peers

func scanMachine(row pgx.CollectableRow, more ...any) (p probe.Probe, err error) {
	var asn int64
	var measured, heard, flapping, online, offline, notice, change *time.Time
	err = row.Scan(append([]any{
		&p.ID, &p.DisplayName, &p.Country, &asn, &p.Type, &p.Contact, &p.RegisteredAt, &p.SoftwareVersion,
		&p.UptimeSeconds, &p.QueueDepth, &measured, &heard, &p.Lifecycle, &p.LifecycleSince,
		&p.Liveness, &p.LivenessSince, &p.Settled, &p.Transitions, &flapping, &online, &offline,
		&p.State, &p.StateSince, &notice, &change,
	}, more...)...)
	p.ASN = network.ASN(asn)
	p.RegisteredAt, p.LifecycleSince = p.RegisteredAt.UTC(), p.LifecycleSince.UTC()
	p.LivenessSince, p.StateSince = p.LivenessSince.UTC(), p.StateSince.UTC()
	p.LastMeasurementAt, p.LastHeartbeatAt, p.FlappingSince = zero(measured), zero(heard), zero(flapping)
	p.OnlineSince, p.OfflineSince = zero(online), zero(offline)
	p.RetiredNoticeAt, p.LastChangeAt = zero(notice), zero(change)
	for i := range p.Transitions {
		p.Transitions[i] = p.Transitions[i].UTC()
	}
	if len(p.Transitions) == 0 {
		p.Transitions = nil
	}
	return p, err
}

func scanProbe(row pgx.CollectableRow) (p Probe, err error) {
	targets, finish := p.scan()
	p.Probe, err = scanMachine(row, append(targets, &p.Peers)...)
	finish()
	return p, err
}

// A ProbeQuery says which probes; every nil condition holds. Visible leaves out, from a
// search by network, the probes whose network the principal must not learn.
type ProbeQuery struct {
	IDs        []string
	Countries  []string
	ASNs       []int64
	States     []string
	Lifecycles []string
	Types      []string
	Visible    Visibility
}

// Visibility is who asks, and the setting that decides what the public sees.
type Visibility struct {
	Principal access.Principal
	Networks  access.PublicNetworks
}

// network adds the condition that the principal may learn the network of probe p.
func (v Visibility) network(w *where) {
	if v.Principal.Staff() || v.Networks == access.Always {
		return
	}
	least := 2
	if v.Networks == access.Never {
		least = 1 << 30
	}
	w.args = append(w.args, string(v.Principal.ProbeID), least)
	n := len(w.args)
	w.conds = append(w.conds, "(p.id = "+dollar(n-1)+" or "+peers+" >= "+dollar(n)+")")
}

// impairments adds the condition that an event is none of impairments, or of a probe whose network
// the principal may learn.
func (v Visibility) impairments(w *where) {
	n := len(w.conds)
	v.network(w)
	if len(w.conds) > n {
		w.conds[n] = "(kind not in ('IMPAIRMENT_RAISED', 'IMPAIRMENT_CLEARED') or exists (select from probe p where p.id = subject and " + w.conds[n] + "))"
	}
}

func (q ProbeQuery) where() *where {
	w := &where{}
	w.in("p.id", q.IDs)
	w.in("p.country", q.Countries)
	w.in("p.state", q.States)
	w.in("p.lifecycle", q.Lifecycles)
	w.in("p.type", q.Types)
	if q.ASNs != nil {
		w.inNumbers("p.asn", q.ASNs)
		q.Visible.network(w)
	}
	return w
}

// A ProbeOrder is what probes are sorted by.
type ProbeOrder int

// The orders. Page keys are the column's value and the id.
const (
	ByRegisteredAt ProbeOrder = iota
	ByStateSince
	ByCountry
)

var probeOrders = map[ProbeOrder]order{
	ByRegisteredAt: {column: "p.registered_at", cast: "timestamptz", tie: "p.id"},
	ByStateSince:   {column: "p.state_since", cast: "timestamptz", tie: "p.id"},
	ByCountry:      {column: "p.country", cast: "text", tie: "p.id"},
}

// Probes returns a page of probes.
func (r reader) Probes(ctx context.Context, q ProbeQuery, by ProbeOrder, desc bool, p Page) ([]Probe, error) {
	o := probeOrders[by]
	o.desc = desc
	w := q.where()
	sql := "select " + probeSelect + " from probe p" + w.page(p, o)
	rows, err := list(ctx, r, scanProbe, sql, w.args...)
	return inOrder(rows, p), err
}

// Board returns up to n probes by country and name.
func (r reader) Board(ctx context.Context, q ProbeQuery, n int) ([]Probe, error) {
	w := q.where()
	w.args = append(w.args, n)
	sql := "select " + probeSelect + " from probe p" + w.String() +
		" order by p.country, p.display_name, p.id limit " + dollar(len(w.args))
	return list(ctx, r, scanProbe, sql, w.args...)
}

// Probe returns one probe. NOT_FOUND when there is none.
func (r reader) Probe(ctx context.Context, id probe.ID) (Probe, error) {
	return one(ctx, r, scanProbe, "select "+probeSelect+" from probe p where p.id = $1", id)
}

// ProbesByID returns those of the probes that exist.
func (r reader) ProbesByID(ctx context.Context, ids []probe.ID) (map[probe.ID]Probe, error) {
	rows, err := list(ctx, r, scanProbe, "select "+probeSelect+" from probe p where p.id = any($1)", ids)
	out := make(map[probe.ID]Probe, len(rows))
	for _, p := range rows {
		out[p.ID] = p
	}
	return out, err
}

// A Sender is what must be known of a probe when it submits.
type Sender struct {
	Lifecycle probe.Lifecycle
	ASN       network.ASN
	Peers     int // on its network, for the privacy rule
}

// Senders returns those of the probes that exist.
func (r reader) Senders(ctx context.Context, ids []probe.ID) (map[probe.ID]Sender, error) {
	type row struct {
		id probe.ID
		Sender
	}
	rows, err := list(ctx, r, func(c pgx.CollectableRow) (x row, err error) {
		err = c.Scan(&x.id, &x.Lifecycle, &x.ASN, &x.Peers)
		return x, err
	}, "select id, lifecycle, asn, "+peers+" from probe p where id = any($1)", ids)
	out := make(map[probe.ID]Sender, len(rows))
	for _, x := range rows {
		out[x.id] = x.Sender
	}
	return out, err
}

// A Display is what a probe was displayed as at some instant.
type Display struct {
	State probe.State
	Since time.Time
}

// DisplaysAsOf folds the log up to the instant: what each of the probes was displayed as
// then. Probes that were not registered yet are left out.
func (r reader) DisplaysAsOf(ctx context.Context, ids []probe.ID, at time.Time) (map[probe.ID]Display, error) {
	type row struct {
		id probe.ID
		d  Display
	}
	rows, err := list(ctx, r, func(c pgx.CollectableRow) (x row, err error) {
		err = c.Scan(&x.id, &x.d.State, &x.d.Since)
		x.d.Since = x.d.Since.UTC()
		return x, err
	}, `select i.id, coalesce(e.to_state, 'OFFLINE'), e.occurred_at from unnest($1::text[]) i (id), lateral (
			select case when kind = 'PROBE_DISPLAY_CHANGED' then payload ->> 'to' end as to_state, occurred_at from event
			where subject = i.id and occurred_at <= $2 and kind in ('PROBE_REGISTERED', 'PROBE_DISPLAY_CHANGED')
			order by occurred_at desc, seq desc limit 1) e`, ids, at)
	out := make(map[probe.ID]Display, len(rows))
	for _, x := range rows {
		out[x.id] = x.d
	}
	return out, err
}

// LockProbes returns those of the probes that exist and keeps everybody else from changing
// them until the transaction ends. Rows are locked by id, so two lockers never wait for each
// other in a circle.
func (t *Tx) LockProbes(ctx context.Context, ids []probe.ID) (map[probe.ID]probe.Probe, error) {
	return t.lock(ctx, "select "+probeColumns+" from probe p where p.id = any($1) order by p.id for no key update", ids)
}

// LockHeard is LockProbes with what is known of their health; Peers are not counted.
func (t *Tx) LockHeard(ctx context.Context, ids []probe.ID) (map[probe.ID]Probe, error) {
	rows, err := list(ctx, t.reader, func(row pgx.CollectableRow) (p Probe, err error) {
		targets, finish := p.scan()
		p.Probe, err = scanMachine(row, append(targets, &p.MustUpdate)...)
		finish()
		return p, err
	}, "select "+probeColumns+", "+healthColumns+`, exists (select from workflow w where w.probe_id = p.id and w.mode = 'CRASH_LOOP' and w.open)
		from probe p where p.id = any($1) order by p.id for no key update`, ids)
	out := make(map[probe.ID]Probe, len(rows))
	for _, p := range rows {
		out[p.ID] = p
	}
	return out, err
}

// LockDueProbes locks up to n probes whose deadline is at or before the instant, and passes
// over those that somebody else holds: that one is dealing with them.
func (t *Tx) LockDueProbes(ctx context.Context, at time.Time, n int) (map[probe.ID]probe.Probe, error) {
	return t.lock(ctx, "select "+probeColumns+` from probe p where p.deadline_at <= $1
		order by p.deadline_at limit $2 for no key update skip locked`, at, n)
}

func (t *Tx) lock(ctx context.Context, sql string, args ...any) (map[probe.ID]probe.Probe, error) {
	rows, err := list(ctx, t.reader, func(row pgx.CollectableRow) (probe.Probe, error) { return scanMachine(row) }, sql, args...)
	out := make(map[probe.ID]probe.Probe, len(rows))
	for _, p := range rows {
		out[p.ID] = p
	}
	return out, err
}

// InsertProbe stores a new probe with the hash of its secret. CONFLICT when the id exists.
func (t *Tx) InsertProbe(ctx context.Context, p probe.Probe, secret access.Hash) error {
	return t.exec(ctx, `insert into probe (id, display_name, country, asn, type, contact, registered_at, secret_hash,
			software_version, uptime_seconds, queue_depth, lifecycle, lifecycle_since, liveness, liveness_since,
			settled, transitions, state, state_since, last_change_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10, $11, $12, $13, $14, '{}', $15, $16, $17)`,
		p.ID, p.DisplayName, p.Country, int64(p.ASN), p.Type, p.Contact, p.RegisteredAt, secret[:], p.SoftwareVersion,
		p.Lifecycle, p.LifecycleSince, p.Liveness, p.LivenessSince, p.Settled, p.State, p.StateSince, null(p.LastChangeAt))
}

// SaveSecret stores the hash of a new secret of a probe, and returns that of the old one.
func (t *Tx) SaveSecret(ctx context.Context, id probe.ID, secret access.Hash) (before access.Hash, err error) {
	old, err := one(ctx, t.reader, pgx.RowTo[[]byte], `update probe p set secret_hash = $2 from (select secret_hash from probe where id = $1) was
		where p.id = $1 returning was.secret_hash`, id, secret[:])
	copy(before[:], old)
	return before, err
}

// SaveHeartbeats stores what the last heartbeats said, and what intake makes of them. It leaves the
// machine alone. Nil Impairments are those that are stored; write none as an empty list.
func (t *Tx) SaveHeartbeats(ctx context.Context, probes []Probe) error {
	n := len(probes)
	if n == 0 {
		return nil
	}
	ids, version, uptime, queue := make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)
	measured, heard := make([]*time.Time, n), make([]*time.Time, n)
	intake, impairments, planned := make([]string, n), make([]*string, n), make([]bool, n)
	seen, seenASN := make([]string, n), make([]int64, n)
	for i, p := range probes {
		ids[i], version[i], uptime[i], queue[i] = string(p.ID), p.SoftwareVersion, p.UptimeSeconds, p.QueueDepth
		measured[i], heard[i], planned[i] = null(p.LastMeasurementAt), null(p.LastHeartbeatAt), p.Planned
		seen[i], seenASN[i] = string(p.Intake.Observed.Country), int64(p.Intake.Observed.ASN)
		b, err := json.Marshal(p.Intake)
		if err != nil {
			return err
		}
		intake[i] = string(b)
		if p.Impairments != nil {
			if b, err = json.Marshal(p.Impairments); err != nil {
				return err
			}
			s := string(b)
			impairments[i] = &s
		}
	}
	return t.exec(ctx, `update probe p set software_version = u.version, uptime_seconds = u.uptime, queue_depth = u.queue,
			last_measurement_at = u.measured_at, last_heartbeat_at = u.heard_at, intake = u.intake::json,
			impairments = coalesce(u.impairments::json, p.impairments), planned = u.planned,
			observed_country = u.seen, observed_asn = u.seen_asn
		from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[],
				$7::text[], $8::text[], $9::bool[], $10::text[], $11::bigint[])
			u (id, version, uptime, queue, measured_at, heard_at, intake, impairments, planned, seen, seen_asn)
		where p.id = u.id`, ids, version, uptime, queue, measured, heard, intake, impairments, planned, seen, seenASN)
}

// SaveImpairments stores what is wrong with a probe that this transaction has locked.
func (t *Tx) SaveImpairments(ctx context.Context, id probe.ID, set []probe.Impaired) error {
	b, err := json.Marshal(append([]probe.Impaired{}, set...))
	if err != nil {
		return err
	}
	return t.exec(ctx, "update probe set impairments = $2::json where id = $1", id, string(b))
}

// SaveProbe stores the whole machine of a probe that this transaction has locked, and the
// instant by which the sweeper must look at it again; zero for never.
func (t *Tx) SaveProbe(ctx context.Context, p probe.Probe, deadline time.Time) error {
	transitions := p.Transitions
	if transitions == nil {
		transitions = []time.Time{}
	}
	return t.exec(ctx, `update probe set software_version = $2, uptime_seconds = $3, queue_depth = $4,
			last_measurement_at = $5, last_heartbeat_at = $6, lifecycle = $7, lifecycle_since = $8, liveness = $9,
			liveness_since = $10, settled = $11, transitions = $12, flapping_since = $13, online_since = $14,
			offline_since = $15, state = $16, state_since = $17, retired_notice_at = $18, last_change_at = $19,
			deadline_at = $20
		where id = $1`,
		p.ID, p.SoftwareVersion, p.UptimeSeconds, p.QueueDepth, null(p.LastMeasurementAt), null(p.LastHeartbeatAt),
		p.Lifecycle, p.LifecycleSince, p.Liveness, p.LivenessSince, p.Settled, transitions, null(p.FlappingSince),
		null(p.OnlineSince), null(p.OfflineSince), p.State, p.StateSince, null(p.RetiredNoticeAt), null(p.LastChangeAt),
		null(deadline))
}

// SaveDeadlines moves the instants by which the sweeper must look again; a zero one means
// never.
func (t *Tx) SaveDeadlines(ctx context.Context, deadlines map[probe.ID]time.Time) error {
	ids, at := make([]string, 0, len(deadlines)), make([]*time.Time, 0, len(deadlines))
	for id, d := range deadlines {
		ids, at = append(ids, string(id)), append(at, null(d))
	}
	return t.exec(ctx, `update probe p set deadline_at = u.at
		from unnest($1::text[], $2::timestamptz[]) u (id, at) where p.id = u.id`, ids, at)
}

// Seen returns when each ACTIVE probe that is ONLINE and was last heard by the instant, and each canary
// of the list that was ever seen, was last heard. Zero is any instant.
func (r reader) Seen(ctx context.Context, canaries []probe.ID, until time.Time) ([]probe.Seen, error) {
	return list(ctx, r, func(row pgx.CollectableRow) (s probe.Seen, err error) {
		var cc string
		var heard *time.Time
		err = row.Scan(&cc, &heard, &s.Liveness, &s.Canary)
		s.Country, s.LastHeartbeatAt = country.Code(cc), zero(heard)
		return s, err
	}, `select country, last_heartbeat_at, liveness, false from probe where lifecycle = 'ACTIVE' and liveness = 'ONLINE' and ($2::timestamptz is null or last_heartbeat_at <= $2)
		union all select country, last_heartbeat_at, liveness, true from probe
		where id = any($1) and type = 'CANARY' and lifecycle <> 'INACTIVE' and last_heartbeat_at is not null`, canaries, null(until))
}

// CountActive is how many probes are ACTIVE.
func (r reader) CountActive(ctx context.Context) (int, error) {
	return one(ctx, r, pgx.RowTo[int], "select count(*) from probe where lifecycle = 'ACTIVE'")
}

// Figures are counts of the whole network.
type Figures struct {
	Probes, Online, OnlineCountries int
	MeasurementsSince               int64
}

// Figures counts, with the measurements received since the instant.
func (r reader) Figures(ctx context.Context, since time.Time) (Figures, error) {
	return one(ctx, r, func(row pgx.CollectableRow) (f Figures, err error) {
		err = row.Scan(&f.Probes, &f.Online, &f.OnlineCountries, &f.MeasurementsSince)
		return f, err
	}, `select count(*) filter (where state <> 'INACTIVE'), count(*) filter (where state = 'ONLINE'),
			count(distinct country) filter (where state = 'ONLINE'),
			(select count(*) from measurement where received_at >= $1)
		from probe`, since)
}
