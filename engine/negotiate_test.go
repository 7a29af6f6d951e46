package engine

import (
	"strings"
	"testing"
)

func TestNegotiate(t *testing.T) {
	t.Parallel()
	const none = mediaType(-1)
	for _, c := range []struct {
		says, accept string
		want         mediaType
	}{
		{"nothing is JSON", "", plainJSON},
		{"blanks are nothing", "  ", plainJSON},
		{"anything is JSON", "*/*", plainJSON},
		{"any application is JSON", "application/*", plainJSON},
		{"a type by its name", "application/graphql-response+json", responseJSON},
		{"another by its name", "application/json", plainJSON},
		{"letters are of either case", "Application/GraphQL-Response+JSON", responseJSON},
		{"parameters do not count", "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", responseJSON},
		{"of equals the first", "application/json, application/graphql-response+json", plainJSON},
		{"the one that is wanted more", "application/json;q=0.8, application/graphql-response+json;q=0.9", responseJSON},
		{"the q may be late and spaced", "application/json ; v=1 ; Q = 0.1, application/graphql-response+json; q=.2", responseJSON},
		{"a name before a range", "*/*, application/graphql-response+json", responseJSON},
		{"a range has no say about what is named", "application/json;q=0, */*", responseJSON},
		{"nor a wide range about a narrow one", "*/*, application/*;q=0", eventStream},
		{"an event stream", "text/event-stream", eventStream},
		{"any text is an event stream", "text/*", eventStream},
		{"an event stream first", "text/event-stream, application/json", eventStream},
		{"an event stream last", "application/json, text/event-stream", plainJSON},
		{"what a browser says", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", plainJSON},
		{"another type", "text/html", none},
		{"nonsense", "nonsense", none},
		{"nothing but a bad q", "application/json;q=much", none},
		{"a q that is not between 0 and 1", "application/json;q=2, application/graphql-response+json;q=-1", none},
		{"a q that is no number", "application/json;q=NaN", none},
		{"what is not wanted", "application/json;q=0", none},
		{"nothing at all is wanted", "*/*;q=0", none},
		{"elements may be empty", ",, application/json ,", plainJSON},
	} {
		t.Run(c.says, func(t *testing.T) {
			t.Parallel()
			got, ok := negotiate([]string{c.accept})
			if !ok {
				got = none
			}
			if got != c.want {
				t.Errorf("Accept: %q is answered with %d, want %d", c.accept, got, c.want)
			}
		})
	}

	t.Run("no header is JSON, and several are one", func(t *testing.T) {
		t.Parallel()
		if got, ok := negotiate(nil); got != plainJSON || !ok {
			t.Errorf("no header is answered with %d, %v", got, ok)
		}
		if got, ok := negotiate([]string{"text/html", "application/graphql-response+json"}); got != responseJSON || !ok {
			t.Errorf("two are answered with %d, %v", got, ok)
		}
	})
}

func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"", "*/*;q=0.1, a/b", "gzip;q=1, zstd;q=0.5, *;q=0", "text/event-stream;;q=;=,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		lower := strings.ToLower(header)
		if as, ok := negotiate([]string{header}); ok && strings.TrimSpace(header) != "" {
			kind, _, _ := strings.Cut(mediaTypes[as], "/")
			if !strings.Contains(lower, mediaTypes[as]) && !strings.Contains(lower, kind+"/*") && !strings.Contains(lower, "*/*") {
				t.Errorf("Accept: %q is answered with %s", header, mediaTypes[as])
			}
		}
		if how := acceptedEncoding([]string{header}); how != identity && !strings.Contains(lower, string(how)) && !strings.Contains(lower, "*") {
			t.Errorf("Accept-Encoding: %q is answered with %s", header, how)
		}
	})
}
