// Package fault answers one question: what went wrong that a caller can act on?
//
// A fault has a code from a closed set, a message that is safe to show to anyone, and,
// where one input is to blame, the name of that field. Causes are for the log alone.
// Nothing here knows how a fault travels: the GraphQL and HTTP spellings are in server.
// Any package may import it.
package fault

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// A Code says what a caller can do about a failure. The set is closed: clients switch on it.
type Code string

// The codes, as they appear in extensions.code. See README for the table of them.
const (
	NotFound         Code = "NOT_FOUND"                 // asked for by id and absent
	Invalid          Code = "INVALID"                   // the input breaks a rule; Field names it
	Conflict         Code = "CONFLICT"                  // it exists, or changed meanwhile
	Unauthenticated  Code = "UNAUTHENTICATED"           // no token, or one nobody issued
	Forbidden        Code = "FORBIDDEN"                 // the token lacks the right
	RateLimited      Code = "RATE_LIMITED"              // too many points; see RetryAfter
	QueryTooCostly   Code = "QUERY_TOO_COSTLY"          // over a structural limit
	Unavailable      Code = "UNAVAILABLE"               // a part we need is down; see RetryAfter
	Resync           Code = "RESYNC"                    // a subscriber cannot continue without a gap
	Internal         Code = "INTERNAL"                  // anything else
	ParseFailed      Code = "GRAPHQL_PARSE_FAILED"      // the document is not GraphQL
	ValidationFailed Code = "GRAPHQL_VALIDATION_FAILED" // the document does not fit the schema
)

// An Error is a failure with a code. Message is one or two sentences for a person, without
// anything that is not theirs to see. RetryAfter is zero where waiting does not help. Numbers
// are what a program may want of the message: `cost` and `limit` of what is too much, `from`
// and `to` of the log where it cannot be continued.
type Error struct {
	Code       Code
	Message    string
	Field      string
	RetryAfter time.Duration
	Numbers    map[string]int64
	cause      error
}

// New makes an Error; format and args make its message.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Field makes an Invalid error about one input, named as the API spells it: "input.asn".
func Field(field, format string, args ...any) *Error {
	e := New(Invalid, format, args...)
	e.Field = field
	return e
}

// Wrap makes an Error whose cause goes to the log and never to a caller.
func Wrap(cause error, code Code, format string, args ...any) *Error {
	e := New(code, format, args...)
	e.cause = cause
	return e
}

// At returns a copy of e that blames the named field.
func (e *Error) At(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// After returns a copy of e that asks the caller to wait for d.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// With returns a copy of e that has the number as well.
func (e *Error) With(name string, n int64) *Error {
	c := *e
	c.Numbers = maps.Clone(e.Numbers)
	if c.Numbers == nil {
		c.Numbers = map[string]int64{}
	}
	c.Numbers[name] = n
	return &c
}

// RetrySeconds is RetryAfter in whole seconds, rounded up.
func (e *Error) RetrySeconds() int { return int((e.RetryAfter + time.Second - 1) / time.Second) }

// Error is for logs: it includes the cause.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Field != "" {
		s += " " + e.Field
	}
	s += ": " + e.Message
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// Of returns the fault in err's chain. An error without one is an Internal fault that
// says nothing but that we failed; nil gives nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Wrap(err, Internal, "The server failed. Quote the request id if you write to us.")
}

// Is reports whether err carries the code.
func Is(err error, code Code) bool {
	return err != nil && Of(err).Code == code
}
