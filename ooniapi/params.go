package ooniapi

import (
	"cmp"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

// maxValues is how many values a comma list has at most.
const maxValues = 100

// params reads the parameters of a request. An empty one counts as absent, as at the peer. err is the first
// that is wrong: INVALID, with its name.
type params struct {
	values  url.Values
	ignored []string // parameters that nobody knows
	err     error
}

// paramsOf takes parameters of these names. Others are listed as ignored: pages send some of their own.
func paramsOf(r *http.Request, names ...string) *params {
	p := &params{values: url.Values{}}
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.err = fault.New(fault.Invalid, "The query string cannot be read. Write %%XX for what is not a letter or a digit.")
		return p
	}
	for _, name := range names {
		values := given[name]
		delete(given, name)
		switch {
		case len(values) == 0 || len(values) == 1 && values[0] == "":
		case len(values) > 1:
			p.fail(name, "This parameter is given %d times. Give it once; lists have commas.", len(values))
		case !utf8.ValidString(values[0]) || strings.Contains(values[0], "\x00"):
			p.fail(name, "This is not text in UTF-8 without U+0000.")
		default:
			p.values.Set(name, values[0])
		}
	}
	for name := range given {
		p.ignored = append(p.ignored, name)
	}
	return p
}

func (p *params) fail(name, format string, args ...any) {
	if p.err == nil {
		p.err = fault.Field(name, format, args...)
	}
}

// alphabet is what codes are made of. Upper case alone would not do: of other letters, too, some have an A to Z as theirs.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// country reads what is given by that name; nothing is country.Unknown.
func (p *params) country(name, given string) country.Code {
	c := cmp.Or(given, string(country.Unknown))
	if len(c) != 2 || strings.Trim(c, alphabet) != "" {
		p.fail(name, "A country is two letters, such as IT.")
	}
	return country.Code(strings.ToUpper(c))
}

// network reads what is given by that name; nothing is network.Unknown.
func (p *params) network(name, given string) network.ASN {
	asn, err := network.Parse(cmp.Or(given, "AS0"))
	if err != nil {
		p.fail(name, "A network is a number such as AS30722 or 30722.")
	}
	return asn
}

// categories reads codes that are given by that name. A category that does not exist has no URLs: who asks may know
// newer ones.
func (p *params) categories(name string, given []string) []string {
	for i, code := range given {
		if code == "" || strings.Trim(code, alphabet) != "" {
			p.fail(name, "%.20q is no code of a category: those are letters.", code)
		}
		given[i] = strings.ToUpper(code)
	}
	return given
}

// text has at least so many characters, unless it is absent.
func (p *params) text(name string, least int) string {
	s := p.values.Get(name)
	if s != "" && utf8.RuneCountInString(s) < least {
		p.fail(name, "This has at least %d characters.", least)
	}
	return s
}

// list is a comma list, and nil when it is absent.
func (p *params) list(name string) []string {
	s := p.values.Get(name)
	if s == "" {
		return nil
	}
	out := split(s)
	if len(out) > maxValues {
		p.fail(name, "A list has at most %d values.", maxValues)
	}
	return out
}

// split takes a comma list apart; one of commas alone has nothing.
func split(s string) []string {
	out := []string{}
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// words is a comma list of names as they are in a test's name.
func (p *params) words(name string) []string {
	out := p.list(name)
	for _, v := range out {
		if len(v) > 100 || strings.Trim(strings.ToLower(v), "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			p.fail(name, "Names have letters, digits and underscores, such as web_connectivity.")
		}
	}
	return out
}

func (p *params) countries(name string) []string {
	out := p.list(name)
	for i, v := range out {
		out[i] = string(p.country(name, v))
	}
	return out
}

func (p *params) networks(name string) []int64 {
	var out []int64
	for _, v := range p.list(name) {
		out = append(out, int64(p.network(name, v)))
	}
	if out == nil && p.values.Get(name) != "" {
		out = []int64{}
	}
	return out
}

// boolean is nil when it is absent.
func (p *params) boolean(name string) *bool {
	s := p.values.Get(name)
	if s == "" {
		return nil
	}
	b, err := strconv.ParseBool(strings.ToLower(s))
	if err != nil {
		p.fail(name, "This is true or false, or left out for both.")
	}
	return &b
}

// number lies between least and most; it is nil when it is absent.
func (p *params) number(name string, least, most int64) *int64 {
	s := p.values.Get(name)
	if s == "" {
		return nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		p.fail(name, "This is a whole number from %d to %d.", least, most)
	}
	return &n
}

// choice is one of the names, the first when it is absent.
func (p *params) choice(name string, names ...string) string {
	s := p.values.Get(name)
	if s == "" {
		return names[0]
	}
	for _, n := range names {
		if strings.EqualFold(s, n) {
			return n
		}
	}
	p.fail(name, "This is one of %s.", strings.Join(names, ", "))
	return names[0]
}

// layouts of instants. What has no zone is in UTC.
var layouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", time.DateOnly}

// instant is nil when it is absent.
func (p *params) instant(name string) *time.Time {
	s := p.values.Get(name)
	if s == "" {
		return nil
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil && t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 {
			t = t.UTC().Truncate(time.Microsecond)
			return &t
		}
	}
	p.fail(name, "This is a day or an instant in UTC, such as 2026-03-01 or 2026-03-01T10:20:30Z.")
	return nil
}

// uid names a measurement. One that nobody can have made is passed on: it is not found.
func (p *params) uid(name string) measurement.ID { return measurement.ID(p.values.Get(name)) }
