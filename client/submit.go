package client

import (
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// A Submission is one measurement body, sent byte for byte. ReceivedAt is for operators who load
// an archive: the instant as of which the server shall judge and date it; zero is now.
// IdempotencyKey is used by Submit alone: a batch has one key of its own.
type Submission struct {
	Content        []byte
	ReceivedAt     time.Time
	IdempotencyKey string
}

// An Outcome is what became of one body. One of three holds: Err is set and nothing
// was stored, or Discarded is and the body was kept aside, or neither and the body was scored as ID.
type Outcome struct {
	ID        measurement.ID
	Duplicate bool // seen before from this sender; ID is the first one
	Anomaly   bool
	Confirmed bool
	Failure   bool
	Discarded *Discarded
	Err       error
}

// Discarded says why a well-formed body takes no part.
type Discarded struct {
	ID      measurement.ID      `json:"uid"` // that it would have had
	Reason  measurement.Discard `json:"reason"`
	Message string              `json:"message"`
}

const outcomeFragment = `
fragment Outcome on SubmitMeasurementPayload {
  measurement { uid anomaly confirmed failure }
  duplicate
  discarded { uid reason message }
  userErrors { code field message retryAfterSeconds }
}`

const submitDocument = `mutation Submit($input: SubmitMeasurementInput!) {
  submitMeasurement(input: $input) { ...Outcome }
}` + outcomeFragment

const submitBatchDocument = `mutation SubmitBatch($input: SubmitMeasurementsInput!) {
  submitMeasurements(input: $input) { outcomes { ...Outcome } userErrors { code field message retryAfterSeconds } }
}` + outcomeFragment

// outcome is an Outcome on the wire.
type outcome struct {
	Measurement *struct {
		UID       measurement.ID `json:"uid"`
		Anomaly   bool           `json:"anomaly"`
		Confirmed bool           `json:"confirmed"`
		Failure   bool           `json:"failure"`
	} `json:"measurement"`
	Duplicate  bool       `json:"duplicate"`
	Discarded  *Discarded `json:"discarded"`
	UserErrors userErrors `json:"userErrors"`
}

func (o outcome) value() Outcome {
	v := Outcome{Duplicate: o.Duplicate, Discarded: o.Discarded, Err: o.UserErrors.err()}
	switch m := o.Measurement; {
	case m != nil:
		v.ID, v.Anomaly, v.Confirmed, v.Failure = m.UID, m.Anomaly, m.Confirmed, m.Failure
	case v.Discarded == nil && v.Err == nil:
		v.Err = fault.New(fault.Internal, "The server did not say what became of the body.")
	}
	return v
}

// item is a body ready to be sent.
type item struct {
	content    json.RawMessage // a JSON string
	receivedAt time.Time
}

// newItem fails with INVALID when content is not UTF-8: JSON cannot carry it unchanged.
func newItem(content []byte, receivedAt time.Time) (item, error) {
	if !utf8.Valid(content) {
		return item{}, fault.Field("input.content", "The body is not UTF-8.")
	}
	s, err := encode(string(content))
	return item{content: s, receivedAt: receivedAt}, err
}

// fields is the item as GraphQL input.
func (i item) fields(idempotencyKey string) any {
	in := struct {
		IdempotencyKey string          `json:"idempotencyKey,omitempty"`
		Content        json.RawMessage `json:"content"`
		ReceivedAt     *time.Time      `json:"receivedAt,omitempty"`
	}{IdempotencyKey: idempotencyKey, Content: i.content}
	if !i.receivedAt.IsZero() {
		at := i.receivedAt.UTC().Truncate(time.Microsecond)
		in.ReceivedAt = &at
	}
	return in
}

// Submit sends one body. The error is what is wrong with the request or the body, so the Outcome's
// Err is nil; a discarded body is no error.
func (c *Client) Submit(ctx context.Context, s Submission) (Outcome, error) {
	i, err := newItem(s.Content, s.ReceivedAt)
	if err != nil {
		return Outcome{}, err
	}
	return c.submit(ctx, s.IdempotencyKey, i)
}

func (c *Client) submit(ctx context.Context, idempotencyKey string, i item) (Outcome, error) {
	var out struct {
		SubmitMeasurement outcome `json:"submitMeasurement"`
	}
	if err := c.Do(ctx, submitDocument, input{i.fields(idempotencyKey)}, &out); err != nil {
		return Outcome{}, err
	}
	v := out.SubmitMeasurement.value()
	if v.Err != nil {
		return Outcome{}, v.Err
	}
	return v, nil
}

// SubmitBatch sends up to 100 bodies in one request, and returns one outcome for each, in order. The error is
// about the batch as a whole; what is wrong with one body is in its Outcome. An empty
// idempotencyKey sends none.
func (c *Client) SubmitBatch(ctx context.Context, idempotencyKey string, ss []Submission) ([]Outcome, error) {
	items := make([]item, len(ss))
	for n, s := range ss {
		var err error
		if items[n], err = newItem(s.Content, s.ReceivedAt); err != nil {
			return nil, err
		}
	}
	return c.submitBatch(ctx, idempotencyKey, items)
}

func (c *Client) submitBatch(ctx context.Context, idempotencyKey string, items []item) ([]Outcome, error) {
	in := struct {
		IdempotencyKey string `json:"idempotencyKey,omitempty"`
		Items          []any  `json:"items"`
	}{idempotencyKey, make([]any, len(items))}
	for n, i := range items {
		in.Items[n] = i.fields("")
	}
	var out struct {
		SubmitMeasurements struct {
			Outcomes   []outcome  `json:"outcomes"`
			UserErrors userErrors `json:"userErrors"`
		} `json:"submitMeasurements"`
	}
	if err := c.Do(ctx, submitBatchDocument, input{in}, &out); err != nil {
		return nil, err
	}
	got := out.SubmitMeasurements
	if err := got.UserErrors.err(); err != nil {
		return nil, err
	}
	if len(got.Outcomes) != len(items) {
		return nil, fault.New(fault.Internal, "The server answered %d outcomes for %d bodies.", len(got.Outcomes), len(items))
	}
	vs := make([]Outcome, len(items))
	for n, o := range got.Outcomes {
		vs[n] = o.value()
	}
	return vs, nil
}
