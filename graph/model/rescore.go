package model

import (
	"time"

	"github.com/openvantage/vantage/db"
)

// An EarlierVerdict is what a measurement was said to show until it was judged again.
type EarlierVerdict struct {
	ReplacedAt                  time.Time
	Anomaly, Confirmed, Failure bool
	Verdict                     *Verdict
	Scores                      *Scores
	ScorerVersion               string
	FingerprintVersion          *int
}

// NewEarlierVerdict shows v to anybody.
func NewEarlierVerdict(v db.Verdict) *EarlierVerdict {
	out := &EarlierVerdict{
		ReplacedAt: v.ReplacedAt, Anomaly: v.Anomaly, Confirmed: v.Confirmed, Failure: v.Failure, Verdict: newVerdict(v.Measurement),
		Scores: newScores(v.Scores), ScorerVersion: v.ScorerVersion,
	}
	if v.FingerprintVersion != 0 {
		out.FingerprintVersion = &v.FingerprintVersion
	}
	return out
}
