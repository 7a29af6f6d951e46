// Package events answers: what happened, and who still has to be told?
//
// It has the types of what the log holds, and the Tail that lets any number of readers in
// this process follow the log without waiting for each other. It decides nothing and stores
// nothing: rules make events, package db writes them, and they reach a Tail only after their
// transaction is committed. Everything outside the rules may import it.
package events

import (
	"encoding/json"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// A Kind is what happened, as the API spells it.
type Kind string

// The kinds that are not a probe's own; those are in package probe and have the same form.
const (
	MeasurementScored    Kind = "MEASUREMENT_SCORED"
	MeasurementRescored  Kind = "MEASUREMENT_RESCORED"
	SubmissionDiscarded  Kind = "SUBMISSION_DISCARDED"
	OutageOpened         Kind = "OBSERVER_OUTAGE_OPENED"
	OutageClosed         Kind = "OBSERVER_OUTAGE_CLOSED"
	FingerprintsImported Kind = "FINGERPRINTS_IMPORTED"
	TestListsImported    Kind = "TEST_LISTS_IMPORTED"
	URLPriorityChanged   Kind = "URL_PRIORITY_CHANGED"
	TokenCreated         Kind = "TOKEN_CREATED"
	ReleaseRecorded      Kind = "RELEASE_RECORDED"
)

// An Event is one row of the log. Seq grows in the order of commits and is 0 until the event
// is written; numbers may be left out. OccurredAt is when the rules say it happened,
// RecordedAt when the transaction that wrote it began. Subject is the global id of what it
// is about, or empty. Country is empty and ASN 0 where it concerns none.
type Event struct {
	Seq         int64
	OccurredAt  time.Time
	RecordedAt  time.Time
	Kind        Kind
	Subject     string
	Country     country.Code
	ASN         network.ASN
	Payload     json.RawMessage
	RuleID      string
	RuleVersion int
	CausedBy    []int64
}

// A Position is a place in the log: everything up to Seq has been seen. RecordedAt of the
// event there lets a reader of the stored log pass over older partitions; zero means that
// nobody knows.
type Position struct {
	Seq        int64
	RecordedAt time.Time
}

// Position is the place just after e.
func (e Event) Position() Position { return Position{Seq: e.Seq, RecordedAt: e.RecordedAt} }

// A Heartbeat is an accepted heartbeat with its number, which comes from the same sequence
// as those of events. Late is that a newer one had overtaken it, so that it changed nothing.
// Answer is what a repetition is answered; nil where none can be told. It is not read back.
type Heartbeat struct {
	Seq int64
	probe.Heartbeat
	Late   bool
	Answer json.RawMessage
}

// Scored is the payload of MeasurementScored: what filters look at, so that a subscription
// decides without a query.
type Scored struct {
	UID             measurement.ID `json:"uid"`
	StartedAt       *time.Time     `json:"startedAt,omitempty"`
	ReceivedAt      time.Time      `json:"receivedAt"`
	TestName        string         `json:"testName"`
	Input           string         `json:"input,omitempty"`
	Domain          string         `json:"domain,omitempty"`
	ReportID        string         `json:"reportId"`
	SoftwareVersion string         `json:"softwareVersion"`
	OONIRunLinkID   *int64         `json:"ooniRunLinkId,omitempty"`
	ProbeID         probe.ID       `json:"probeId,omitempty"`
	Anomaly         bool           `json:"anomaly,omitempty"`
	Confirmed       bool           `json:"confirmed,omitempty"`
	Failure         bool           `json:"failure,omitempty"`

	// What the probe was when it measured. MaxTier is empty in events from before it was
	// recorded; that is TierNone.
	Flapping  bool       `json:"flapping,omitempty"`
	Suspended bool       `json:"suspended,omitempty"`
	Warmup    bool       `json:"warmup,omitempty"`
	MaxTier   probe.Tier `json:"maxTier,omitempty"`
}

// Rescored is the payload of MeasurementRescored: what the measurement says now, and the verdict that was replaced.
type Rescored struct {
	Scored
	Outcome      measurement.Outcome `json:"outcome"`
	BlockingType string              `json:"blockingType,omitempty"`
	Before       Verdict             `json:"before"`
}

// Verdict is what of a verdict has it announced when it changes.
type Verdict struct {
	Anomaly      bool                `json:"anomaly,omitempty"`
	Confirmed    bool                `json:"confirmed,omitempty"`
	Failure      bool                `json:"failure,omitempty"`
	Outcome      measurement.Outcome `json:"outcome"`
	BlockingType string              `json:"blockingType,omitempty"`
}

// Discarded is the payload of SubmissionDiscarded.
type Discarded struct {
	UID    measurement.ID `json:"uid"`
	Reason string         `json:"reason"`
}

// Outage is the payload of OutageOpened and OutageClosed.
type Outage struct {
	ID    int64      `json:"id"`
	From  time.Time  `json:"from"`
	To    *time.Time `json:"to,omitempty"`
	Cause string     `json:"cause"`
}

// Imported is the payload of FingerprintsImported.
type Imported struct {
	Version int    `json:"version"`
	DNS     int    `json:"dns"`
	HTTP    int    `json:"http"`
	Source  string `json:"source"`
}

// ListsImported is the payload of TestListsImported.
type ListsImported struct {
	Version int    `json:"version"`
	Lists   int    `json:"lists"`
	Entries int    `json:"entries"`
	Source  string `json:"source"`
}

// URLPriority is a rule about which URLs are measured first.
type URLPriority struct {
	ID           int64        `json:"id"`
	CategoryCode string       `json:"categoryCode"`
	Country      country.Code `json:"country"`
	Domain       string       `json:"domain"`
	URL          string       `json:"url"`
	Priority     int          `json:"priority"`
}

// PriorityChange is the payload of URLPriorityChanged: no Before where the rule is new, no After
// where it is gone.
type PriorityChange struct {
	Before *URLPriority `json:"before,omitempty"`
	After  *URLPriority `json:"after,omitempty"`
}

// Token is the payload of TokenCreated.
type Token struct {
	ID   int64  `json:"id"`
	Role string `json:"role"`
	Name string `json:"name"`
}
