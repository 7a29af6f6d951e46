package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// A SpooledPile is what of a pile waits to be archived. Bytes are as the spool stores them.
type SpooledPile struct {
	archive.Pile
	Bodies int
	Bytes  int64
}

// SpooledPiles are all that wait, oldest first.
func (r reader) SpooledPiles(ctx context.Context) ([]SpooledPile, error) {
	return list(ctx, r, func(row pgx.CollectableRow) (p SpooledPile, err error) {
		err = row.Scan(&p.Hour, &p.Country, &p.TestName, &p.Bodies, &p.Bytes)
		p.Hour = p.Hour.UTC()
		return p, err
	}, `select date_trunc('hour', received_at) as hour, country, split_part(uid, '_', 3) as test_name, count(*), sum(octet_length(data))
		from body group by 1, 2, 3 order by 1, 2, 3`)
}

// A SpooledBody is one body that waits. Bytes are as the spool stores it.
type SpooledBody struct {
	UID   measurement.ID
	Bytes int
}

// SpooledBodies are the first n of a pile in the order of their receipt, without the bodies.
func (r reader) SpooledBodies(ctx context.Context, p archive.Pile, n int) ([]SpooledBody, error) {
	return list(ctx, r, pgx.RowToStructByPos[SpooledBody], `select uid, octet_length(data) from body
		where received_at >= $1 and received_at < $2 and country = $3 and split_part(uid, '_', 3) = $4 order by received_at, uid limit $5`,
		p.Hour, p.Hour.Add(time.Hour), p.Country, p.TestName, n)
}

// Spooled returns those of the bodies that are in the spool, byte for byte. One that cannot be read is nil.
func (r reader) Spooled(ctx context.Context, uids []measurement.ID) (map[measurement.ID][]byte, error) {
	at, cc, ids := splitAll(uids)
	type row struct {
		UID  measurement.ID
		Data []byte
	}
	rows, err := list(ctx, r, pgx.RowToStructByPos[row], `select uid, data from body
		where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))`, at, cc, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[measurement.ID][]byte, len(rows))
	for _, s := range rows {
		if out[s.UID], err = expand(s.Data); err != nil {
			out[s.UID] = nil
		}
	}
	return out, nil
}

// splitAll takes ids apart into columns; what is no id is left out.
func splitAll(uids []measurement.ID) (at []time.Time, cc, ids []string) {
	for _, uid := range uids {
		if t, c, ok := uid.Split(); ok {
			at, cc, ids = append(at, t), append(cc, string(c)), append(ids, string(uid))
		}
	}
	return at, cc, ids
}

// A PileLock keeps every other process from packing a pile.
type PileLock struct {
	Unlock func()
	key    string
	pid    uint32
}

// LockPile locks a pile until Unlock is called. It reports false when another process has it. The context that it
// returns ends when the lock is lost, for the database lets others in then.
func (d *DB) LockPile(ctx context.Context, p archive.Pile) (locked context.Context, l PileLock, ok bool, err error) {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, l, false, translate(err)
	}
	l.key = "pile:" + p.Hour.UTC().Format("2006010215") + "_" + string(p.Country) + "_" + p.TestName
	l.pid = conn.Conn().PgConn().PID()
	err = conn.QueryRow(ctx, "select pg_try_advisory_lock(hashtextextended($1, 0))", l.key).Scan(&ok)
	if err != nil || !ok {
		conn.Release()
		return nil, l, false, translate(err)
	}
	locked, lose := context.WithCancelCause(ctx)
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Nobody notifies this session: this returns when the session ends, or the watch.
		if _, err := conn.Conn().WaitForNotification(watching); watching.Err() == nil {
			lose(unavailable(errors.Join(errLockLost, err)))
		}
	}()
	l.Unlock = func() {
		stop()
		<-done
		lose(nil)
		freeing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(freeing, "select pg_advisory_unlock_all()"); err != nil {
			_ = conn.Conn().Close(freeing) // the lock goes with the session
		}
		conn.Release()
	}
	return locked, l, true, nil
}

var errLockLost = errors.New("the lock of a pile was lost")

// Holds fails with UNAVAILABLE when the lock was lost, which its own session may not know yet: a database that is
// gone without a word has let others in.
func (r reader) Holds(ctx context.Context, l PileLock) error {
	held, err := one(ctx, r, pgx.RowTo[bool], `select exists (select from pg_locks, hashtextextended($2, 0) k
		where locktype = 'advisory' and granted and pid = $1 and objsubid = 1
			and (classid::bigint << 32 | objid::bigint) = k and database = (select oid from pg_database where datname = current_database()))`,
		int64(l.pid), l.key)
	if err == nil && !held {
		return unavailable(errLockLost)
	}
	return err
}

// A Pack is a file of bodies in the object store and one of lines. DamagedAt is zero while it is
// whole as far as anybody knows.
type Pack struct {
	ID                  int64
	Name                string // of both objects, without their suffixes
	Pile                archive.Pile
	Collector, Sequence int
	Posts, Lines        archive.Object
	Bodies              int
	PackedAt, DamagedAt time.Time
}

// NextPack is the sequence number of the pile's next pack.
func (r reader) NextPack(ctx context.Context, p archive.Pile, collector int) (int, error) {
	return one(ctx, r, pgx.RowTo[int], `select coalesce(max(sequence), -1) + 1 from pack
		where hour = $1 and country = $2 and test_name = $3 and collector = $4`, p.Hour, p.Country, p.TestName, collector)
}

// InsertPack takes bodies that are in the store out of the spool, and records where they are. It fails
// with CONFLICT when another process was faster with the same pack or any of the bodies.
func (t *Tx) InsertPack(ctx context.Context, p Pack, entries []archive.Entry) error {
	id, err := one(ctx, t.reader, pgx.RowTo[int64], `insert into pack (name, hour, country, test_name, collector, sequence, posts_size,
			posts_sha256, lines_size, lines_sha256, body_count, packed_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) returning id`,
		p.Name, p.Pile.Hour, p.Pile.Country, p.Pile.TestName, p.Collector, p.Sequence, p.Posts.Size, p.Posts.SHA256[:], p.Lines.Size, p.Lines.SHA256[:],
		len(entries), t.Now)
	if err != nil {
		return err
	}
	n := len(entries)
	at, uids, sums := make([]time.Time, n), make([]string, n), make([][]byte, n)
	postOffset, lineOffset := make([]int64, n), make([]int64, n)
	postLength, lineLength, line, size := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, e := range entries {
		at[i], _, _ = e.UID.Split()
		uids[i], sums[i] = string(e.UID), e.SHA256[:]
		postOffset[i], postLength[i], lineOffset[i], lineLength[i] = e.PostOffset, e.PostLength, e.LineOffset, e.LineLength
		line[i], size[i] = int64(e.Line), int64(e.Size)
	}
	err = t.exec(ctx, `insert into packed_body (received_at, country, uid, pack, post_offset, post_length, line_offset, line_length,
			line_number, body_size, body_sha256)
		select at, $2, uid, $3, po, pl, lo, ll, line, size, sum
		from unnest($1::timestamptz[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[])
			as e (at, uid, po, pl, lo, ll, line, size, sum)`,
		at, p.Pile.Country, id, uids, postOffset, postLength, lineOffset, lineLength, line, size, sums)
	if err != nil {
		return err
	}
	tag, err := t.q.Exec(ctx, `delete from body where country = $1 and received_at >= $2 and received_at < $3
		and (received_at, country, uid) in (select at, $1, uid from unnest($4::timestamptz[], $5::text[]) as e (at, uid))`,
		p.Pile.Country, p.Pile.Hour, p.Pile.Hour.Add(time.Hour), at, uids)
	if err == nil && tag.RowsAffected() != int64(n) {
		return fault.New(fault.Conflict, "Of %d bodies that were packed only %d are in the spool.", n, tag.RowsAffected())
	}
	return translate(err)
}

// SaveDamage records that a pack is damaged, or whole again, and reports whether that is news.
func (t *Tx) SaveDamage(ctx context.Context, id int64, damaged bool) (bool, error) {
	tag, err := t.q.Exec(ctx, `update pack set damaged_at = case when $2 then $3::timestamptz end
		where id = $1 and (damaged_at is not null) <> $2`, id, damaged, t.Now)
	return tag.RowsAffected() == 1, translate(err)
}

// A StoredBody is where a body is: here, byte for byte, or in a pack.
type StoredBody struct {
	Here  []byte // nil when it is archived
	Pack  int64
	Posts string // the object
	archive.Entry
}

// StoredBody finds a body, which is in the spool or in a pack at any instant. NOT_FOUND when there is none.
func (r reader) StoredBody(ctx context.Context, uid measurement.ID) (StoredBody, error) {
	at, cc, ok := uid.Split()
	if !ok {
		return StoredBody{}, fault.New(fault.NotFound, "There is no measurement with this uid.")
	}
	return one(ctx, r, func(row pgx.CollectableRow) (s StoredBody, err error) {
		var data, sum []byte
		if err = row.Scan(&data, &s.Pack, &s.Posts, &s.PostOffset, &s.PostLength, &s.Size, &sum); err != nil {
			return s, err
		}
		s.UID = uid
		copy(s.SHA256[:], sum)
		if data != nil {
			s.Here, err = expand(data)
		} else {
			s.Posts += archive.PostsSuffix
		}
		return s, err
	}, `select data, 0::bigint, '', 0::bigint, 0, 0, null::bytea from body where received_at = $1 and country = $2 and uid = $3
		union all
		select null, p.id, p.name, b.post_offset, b.post_length, b.body_size, b.body_sha256 from packed_body b join pack p on p.id = b.pack
		where b.received_at = $1 and b.country = $2 and b.uid = $3`, at, cc, uid)
}

// A PackQuery says which packs; every nil condition holds. Times are of hours of receipt, names of tests as probes or ids
// spell them.
type PackQuery struct {
	Since, Until *time.Time
	Countries    []string
	TestNames    []string
}

const packSelect = `select id, name, hour, country, test_name, collector, sequence, posts_size, posts_sha256, lines_size, lines_sha256,
	body_count, packed_at, damaged_at from pack`

func scanPack(row pgx.CollectableRow) (p Pack, err error) {
	var cc country.Code
	var posts, lines []byte
	var damaged *time.Time
	err = row.Scan(&p.ID, &p.Name, &p.Pile.Hour, &cc, &p.Pile.TestName, &p.Collector, &p.Sequence, &p.Posts.Size, &posts, &p.Lines.Size, &lines,
		&p.Bodies, &p.PackedAt, &damaged)
	p.Pile.Hour, p.Pile.Country, p.PackedAt, p.DamagedAt = p.Pile.Hour.UTC(), cc, p.PackedAt.UTC(), zero(damaged)
	p.Posts.Name, p.Lines.Name = p.Name+archive.PostsSuffix, p.Name+archive.LinesSuffix
	copy(p.Posts.SHA256[:], posts)
	copy(p.Lines.SHA256[:], lines)
	return p, err
}

func (q PackQuery) conditions(w *where) {
	w.since("hour", q.Since)
	w.until("hour", q.Until)
	w.in("country", q.Countries)
	var names []string
	if q.TestNames != nil {
		names = make([]string, len(q.TestNames))
		for i, name := range q.TestNames {
			names[i] = measurement.NameInID(name)
		}
	}
	w.in("test_name", names)
}

// Packs returns a page of packs in the order in which they were archived. Page keys are ids.
func (r reader) Packs(ctx context.Context, q PackQuery, p Page) ([]Pack, error) {
	w := &where{}
	q.conditions(w)
	rows, err := list(ctx, r, scanPack, packSelect+w.page(p, order{column: "id", cast: "bigint"}), w.args...)
	return inOrder(rows, p), err
}

// Pack returns a pack by its number. NOT_FOUND when there is none.
func (r reader) Pack(ctx context.Context, id int64) (Pack, error) {
	return one(ctx, r, scanPack, packSelect+" where id = $1", id)
}

// PackOf returns a pack by the name of its objects, without their suffixes. NOT_FOUND when there is none.
func (r reader) PackOf(ctx context.Context, name string) (Pack, error) {
	return one(ctx, r, scanPack, packSelect+" where name = $1", name)
}

// PackedBodies are the bodies of a pack, in its order.
func (r reader) PackedBodies(ctx context.Context, p Pack) ([]archive.Entry, error) {
	return list(ctx, r, func(row pgx.CollectableRow) (e archive.Entry, err error) {
		var sum []byte
		err = row.Scan(&e.UID, &e.PostOffset, &e.PostLength, &e.LineOffset, &e.LineLength, &e.Line, &e.Size, &sum)
		copy(e.SHA256[:], sum)
		return e, err
	}, `select uid, post_offset, post_length, line_offset, line_length, line_number, body_size, body_sha256 from packed_body
		where received_at >= $1 and received_at < $2 and country = $3 and pack = $4 order by line_number`,
		p.Pile.Hour, p.Pile.Hour.Add(time.Hour), p.Pile.Country, p.ID)
}
