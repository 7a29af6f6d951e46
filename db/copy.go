package db

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"time"
)

// A copyIn is rows on their way into a table by COPY, in PostgreSQL's binary format: one round trip
// and no planning, however many they are. A field is written with the method of its column's type.
//
// Source: PostgreSQL's manual, COPY, "Binary Format".
type copyIn struct{ buf []byte }

var copyHeader = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// postgresEpoch is from when PostgreSQL counts microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func newCopyIn(size int) *copyIn {
	return &copyIn{buf: append(make([]byte, 0, size), copyHeader...)}
}

// row begins a row of so many fields.
func (c *copyIn) row(fields int) { c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(fields)) }

func (c *copyIn) size(n int) { c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n)) }

func (c *copyIn) null() { c.buf = binary.BigEndian.AppendUint32(c.buf, math.MaxUint32) }

func (c *copyIn) text(s string) {
	c.size(len(s))
	c.buf = append(c.buf, s...)
}

func (c *copyIn) bytes(b []byte) {
	c.size(len(b))
	c.buf = append(c.buf, b...)
}

func (c *copyIn) bool(b bool) {
	c.size(1)
	if b {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
}

func (c *copyIn) int4(n int) {
	c.size(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n))
}

func (c *copyIn) int8(n int64) {
	c.size(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(n))
}

// known writes zero as NULL.
func (c *copyIn) known(n int64) {
	if n == 0 {
		c.null()
		return
	}
	c.int8(n)
}

// time writes the zero time as NULL.
func (c *copyIn) time(t time.Time) {
	if t.IsZero() {
		c.null()
		return
	}
	c.int8(t.UnixMicro() - postgresEpoch)
}

// copyIn stores the rows.
func (t *Tx) copyIn(ctx context.Context, table, columns string, rows *copyIn) error {
	rows.buf = binary.BigEndian.AppendUint16(rows.buf, math.MaxUint16) // the end
	_, err := t.pgx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(rows.buf), "copy "+table+" ("+columns+") from stdin (format binary)")
	return translate(err)
}
