// Package model answers: what does an entity look like to whoever asks?
//
// Entities are made here from stored rows, and only here is anything withheld, so that no
// resolver can forget the privacy rule. Inputs and payloads that are nothing but their fields are
// generated. There are no queries and no decisions but that one. It imports the rules,
// events and the rows of db; graph and resolvers import it.
package model

import (
	"encoding/json"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
)

// MarshalDateTime writes an instant in UTC with up to six decimals.
func MarshalDateTime(t time.Time) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		b := t.UTC().Truncate(time.Microsecond).AppendFormat([]byte{'"'}, time.RFC3339Nano)
		_, _ = w.Write(append(b, '"')) // the writer keeps its own error
	})
}

// UnmarshalDateTime reads RFC 3339 with any offset. It fails with INVALID.
func UnmarshalDateTime(v any) (time.Time, error) {
	s, ok := v.(string)
	t, err := time.Parse(time.RFC3339Nano, s)
	if !ok || err != nil || t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, fault.New(fault.Invalid, "A DateTime is written like 2026-11-21T14:03:22Z.")
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// MarshalCountryCode writes the code.
func MarshalCountryCode(c country.Code) graphql.Marshaler { return graphql.MarshalString(string(c)) }

// UnmarshalCountryCode reads an assigned code, or ZZ. It fails with INVALID.
func UnmarshalCountryCode(v any) (country.Code, error) {
	s, _ := v.(string)
	if country.Code(s) == country.Unknown {
		return country.Unknown, nil
	}
	return country.Parse(s)
}

// MarshalCursor writes the cursor.
func MarshalCursor(c string) graphql.Marshaler { return graphql.MarshalString(c) }

// UnmarshalCursor reads any text; whoever uses it says whether it is a cursor. It fails with
// INVALID.
func UnmarshalCursor(v any) (string, error) {
	if s, ok := v.(string); ok {
		return s, nil
	}
	return "", fault.New(fault.Invalid, "A Cursor is a text that you were given.")
}

// MarshalASN writes "AS44244".
func MarshalASN(a network.ASN) graphql.Marshaler { return graphql.MarshalString(a.String()) }

// UnmarshalASN reads "AS44244" or 44244. It fails with INVALID.
func UnmarshalASN(v any) (network.ASN, error) {
	switch v := v.(type) {
	case string:
		return network.Parse(v)
	case json.Number:
		return network.Parse(v.String())
	case int64:
		return network.Parse(strconv.FormatInt(v, 10))
	case int:
		return network.Parse(strconv.Itoa(v))
	}
	return 0, fault.New(fault.Invalid, "An ASN is written like \"AS44244\" or 44244.")
}

// MarshalBigInt writes a number up to 2^53 and a string of digits beyond.
func MarshalBigInt(n int64) graphql.Marshaler {
	s := strconv.FormatInt(n, 10)
	if n > 1<<53 || n < -1<<53 {
		return graphql.MarshalString(s)
	}
	return graphql.WriterFunc(func(w io.Writer) { _, _ = io.WriteString(w, s) })
}

// UnmarshalBigInt reads a whole number or a string of digits. It fails with INVALID.
func UnmarshalBigInt(v any) (int64, error) {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case json.Number:
		s = v.String()
	case int64:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
			return int64(v), nil
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "A BigInt is a whole number of at most 64 bits.")
	}
	return n, nil
}

// MarshalJSON writes JSON as it is.
func MarshalJSON(b json.RawMessage) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		if b == nil {
			b = json.RawMessage("null")
		}
		_, _ = w.Write(b)
	})
}

// UnmarshalJSON refuses: no input takes JSON.
func UnmarshalJSON(any) (json.RawMessage, error) {
	return nil, fault.New(fault.Invalid, "No input is JSON; bodies are sent as strings.")
}
