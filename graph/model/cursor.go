package model

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
)

// Cursors are a version, the kind of list, and the keys of the place, in base64. The kind keeps
// a cursor of one list from being read as another's.
const (
	cursorVersion     = "1"
	CursorLog         = "log"
	CursorProbe       = "probe"
	CursorMeasurement = "measurement"
	CursorHeartbeat   = "heartbeat"
	CursorReplacement = "replacement"
	CursorAudit       = "audit"
	CursorTask        = "task"
	CursorWorkflow    = "workflow"
	CursorRelease     = "release"
	CursorAlert       = "alert"
	CursorSilence     = "silence"
	CursorDigest      = "digest"
	CursorWebhook     = "webhook"
	CursorListVersion = "testListVersion"
	CursorListEntry   = "testListEntry"
	CursorURLPriority = "urlPriority"
	CursorFaulty      = "faulty"
	CursorPack        = "pack"
	cursorSnapshot    = "snapshot"

	CursorCause         = "cause"
	CursorInvestigation = "investigation"
)

// NewCursor names a place in a list of that kind.
func NewCursor(kind string, keys ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + "\x1f" + kind + "\x1f" + strings.Join(keys, "\x1f")))
}

// ParseCursor gives back the keys of a place. It fails with INVALID when this is no cursor of
// that kind of list with so many keys.
func ParseCursor(kind, cursor string, keys int) ([]string, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	parts := strings.Split(string(b), "\x1f")
	if err != nil || len(parts) != keys+2 || parts[0] != cursorVersion || parts[1] != kind ||
		!utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return nil, notACursor()
	}
	return parts[2:], nil
}

func notACursor() error {
	return fault.New(fault.Invalid, "This is not a cursor of this list. Send back one that you were given, unchanged.")
}

// LogCursor names a place in the event log.
func LogCursor(p events.Position) string {
	var at int64
	if !p.RecordedAt.IsZero() {
		at = p.RecordedAt.UnixMicro()
	}
	return NewCursor(CursorLog, strconv.FormatInt(p.Seq, 10), strconv.FormatInt(at, 10))
}

// ParseLogCursor gives back a place in the event log. It fails with INVALID.
func ParseLogCursor(cursor string) (p events.Position, err error) {
	keys, err := ParseCursor(CursorLog, cursor, 2)
	if err != nil {
		return p, err
	}
	seq, e1 := strconv.ParseInt(keys[0], 10, 64)
	at, e2 := strconv.ParseInt(keys[1], 10, 64)
	if e1 != nil || e2 != nil || seq < 0 || at < 0 {
		return p, notACursor()
	}
	p.Seq = seq
	if at > 0 {
		p.RecordedAt = time.UnixMicro(at).UTC()
	}
	return p, nil
}

// SnapshotCursor names any place within a snapshot, which is no place in the log: who has only
// a part of the state cannot continue with what comes after it, and gets the whole again.
var SnapshotCursor = NewCursor(cursorSnapshot)

// KeyTime writes an instant as a cursor's key, and as what the database compares it with.
func KeyTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// CheckKeyTime fails with INVALID unless the key is an instant as KeyTime writes it: the database would fail
// otherwise, and say so in its own words.
func CheckKeyTime(key string) error {
	if t, err := time.Parse(time.RFC3339Nano, key); err != nil || KeyTime(t) != key || t.Year() < 1 {
		return notACursor()
	}
	return nil
}

// CheckKeyNumber fails with INVALID unless the key is a number as we write one.
func CheckKeyNumber(key string) error {
	if n, err := strconv.ParseInt(key, 10, 64); err != nil || n < 0 || strconv.FormatInt(n, 10) != key {
		return notACursor()
	}
	return nil
}

// NumberCursor is the cursor of a place in a list that is sorted by one number.
func NumberCursor(kind string, n int64) string {
	return NewCursor(kind, strconv.FormatInt(n, 10))
}

// NumberKeys gives back the key of a place in a list that is sorted by one number. It fails with
// INVALID.
func NumberKeys(kind string) func(cursor string) ([]string, error) {
	return func(cursor string) ([]string, error) {
		keys, err := ParseCursor(kind, cursor, 1)
		if err == nil {
			err = CheckKeyNumber(keys[0])
		}
		return keys, err
	}
}
