package db_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

func TestBody(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	n := 0
	stored := func(t fatal, data, body []byte) (got []byte, err error) {
		t.Helper()
		n++
		uid := measurement.NewID(now.Add(time.Duration(n)*time.Microsecond), "DE", "signal", body)
		at, _, _ := uid.Split()
		write(t, d, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertBodies(ctx, db.CompressedBody{UID: uid, ReceivedAt: at, Country: "DE", Data: data})
		})
		s, err := d.StoredBody(context.Background(), uid)
		return s.Here, err
	}
	roundTrip := func(t fatal, body []byte) {
		t.Helper()
		got, err := stored(t, db.Compress(body), body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatal("another body came back", len(got), len(body), err)
		}
	}
	random := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	for _, body := range [][]byte{{0}, []byte("{}"), []byte("\n"), bytes.Repeat([]byte("a"), 4<<20), random} {
		roundTrip(t, body)
	}
	z, _ := zstd.NewWriter(nil) // without options it cannot fail
	if got, err := stored(t, z.EncodeAll([]byte("{}"), nil), []byte("{}")); err != nil || string(got) != "{}" {
		t.Errorf("a body from before S2 comes back as %q, %v", got, err)
	}
	for _, data := range [][]byte{{}, {1}, {0, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0, 9, 9}} {
		if got, err := stored(t, data, fmt.Append(nil, n)); err == nil {
			t.Errorf("%x is read as %q", data, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) { roundTrip(t, rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "body")) })
}

func TestMeasurementRow(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	runtime, link := 1.25, int64(10001)
	full := db.Measurement{
		ReceivedAt: now.Add(time.Microsecond), ReportID: "r", Input: "https://example.org/", Domain: "example.org", Country: "DE",
		ASN: 4294967295, ResolverASN: 1, TestName: "web_connectivity", TestVersion: "0.4", TestStartedAt: now, StartedAt: now,
		TestRuntime: &runtime, Platform: "linux", Architecture: "arm64", SoftwareName: "s", SoftwareVersion: "1", EngineName: "e",
		EngineVersion: "2", TestHelperAddress: "a", TestHelperType: "t", OONIRunLinkID: &link, Verified: measurement.VerifiedUnknown,
		Anomaly: true, Confirmed: true, Failure: true, BlockingType: "dns", Scores: []byte(`{"a":1}`), ScoringProblem: "p",
		ScorerVersion: "5", FingerprintVersion: 3, Provenance: db.FromAnyone, BodySize: 2, BodySHA256: sha256.Sum256([]byte("{}")),
		Outcome: measurement.Blocked, Evidence: []measurement.Evidence{{RuleID: "R", Explanation: "e", Matched: "m", Fingerprint: "f"}},
	}
	least := db.Measurement{ReceivedAt: now, Country: "DE", Scores: []byte("{}"), Provenance: db.FromArchive}
	for name, want := range map[string]db.Measurement{"with all that there can be": full, "with next to nothing": least} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want.UID = measurement.NewID(want.ReceivedAt, "DE", "x", []byte(name))
			write(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertMeasurements(ctx, want) })
			got, err := d.Measurement(context.Background(), want.UID)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// TestMigrateVerdict looks at what measurements from before there were verdicts become.
func TestMigrateVerdict(t *testing.T) {
	t.Parallel()
	d, url := open(t)
	uids := map[string]measurement.ID{}
	for name, m := range map[string]db.Measurement{
		"OK":           {},
		"BLOCKED":      {Anomaly: true, BlockingType: "dns"},
		"BLOCKED ":     {Confirmed: true},
		"INSUFFICIENT": {Anomaly: true, BlockingType: "http-diff"},
		"INSUFFICIENT ": {
			Anomaly: true, Confirmed: true, Failure: true,
		},
	} {
		m.ReceivedAt, m.Country, m.Scores, m.Provenance = now, "DE", []byte("{}"), db.FromAnyone
		m.UID = measurement.NewID(now, "DE", "x", []byte(name))
		uids[name] = m.UID
		write(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertMeasurements(ctx, m) })
	}
	for v := db.Latest(); v >= 15; {
		if err := db.MigrateDown(t.Context(), url, 1); err != nil {
			t.Fatal(err)
		}
		st, err := db.Migrations(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		v = st.Version
	}
	if err := db.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	again := connect(t, url) // statements of the first knew the columns that are gone
	for name, uid := range uids {
		m, err := again.Measurement(t.Context(), uid)
		if err != nil || string(m.Outcome) != strings.TrimSpace(name) || m.Evidence != nil {
			t.Errorf("%s became %q %v, %v", name, m.Outcome, m.Evidence, err)
		}
	}
}

func TestReadWithin(t *testing.T) {
	t.Parallel()
	d, url := open(t)
	conn := raw(t, url)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table measurement in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	read := func(v db.View) error {
		_, err := v.Measurements(t.Context(), db.MeasurementQuery{}, db.ByStartedAt, true, db.Page{N: 1})
		return err
	}
	if err := d.ReadWithin(t.Context(), 50*time.Millisecond, read); !fault.Is(err, fault.Unavailable) || fault.Of(err).RetryAfter == 0 {
		t.Error("what takes longer fails with", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadWithin(t.Context(), 20*time.Second, read); err != nil {
		t.Error(err)
	}
}

func TestClaimSubmissions(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	first := db.Submission{StartedAt: now, Country: "DE", BodySHA256: [32]byte{1}, UID: "first"}
	claim := func(t *testing.T, s db.Submission) (uid measurement.ID, fresh bool) {
		t.Helper()
		write(t, d, func(ctx context.Context, tx *db.Tx) (err error) {
			earlier, err := tx.ClaimSubmissions(ctx, []db.Submission{s})
			if uid, fresh = s.UID, len(earlier) == 0; !fresh {
				uid = earlier[s.Key()]
			}
			return err
		})
		return uid, fresh
	}
	if uid, fresh := claim(t, first); uid != "first" || !fresh {
		t.Fatalf("the first: %s %v", uid, fresh)
	}
	again, other := first, first
	again.UID, other.UID, other.Sender = "again", "other", "prb_0000000000000001"
	if uid, fresh := claim(t, again); uid != "first" || fresh {
		t.Errorf("the same again: %s %v", uid, fresh)
	}
	if uid, fresh := claim(t, other); uid != "other" || !fresh {
		t.Errorf("another sender: %s %v", uid, fresh)
	}
}
