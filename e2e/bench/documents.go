//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// An attack is a request that is made to hurt: a row of the API's design that concerns
// documents. NAME in it becomes another word each time, so that nothing is known already.
type attack struct {
	name  string
	body  string // as it is posted
	stock string // what stock gqlgen did, measured before
	paid  bool   // it is within the limits
}

// repeated is what f writes for 0 to n-1.
func repeated(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

func attacks() []attack {
	document := func(text string) string {
		b, err := json.Marshal(map[string]string{"query": text})
		if err != nil {
			panic(err) // a string always has JSON
		}
		return string(b)
	}
	doubling := func(n int, body string) string {
		return repeated(n, func(i int) string {
			return fmt.Sprintf("fragment F%d on Measurement{%s}", i, strings.ReplaceAll(body, "NEXT", fmt.Sprint(i+1)))
		}) + fmt.Sprintf("fragment F%d on Measurement{uid}", n)
	}
	const page = "network{measurements(first:1){edges{node{...FNEXT}}}}"
	return []attack{
		{"8 MB of `[`", document("query NAME{measurement(uid:" + strings.Repeat("[", 8<<20)), "the process dies, or 71 ms", false},
		{"200 KB of `[`", document("query NAME{measurement(uid:" + strings.Repeat("[", 200<<10)), "", false},
		{"10 MB of spaces", document("query NAME{" + strings.Repeat(" ", 10<<20) + "viewer{role}}"), "", false},
		{"fragments that double 26 times", document(`query NAME{measurement(uid:"x"){...F0}}` + doubling(26, "...FNEXT ...FNEXT")), "8 to 10 s", false},
		{"fragments that double 12 times, below aliases", document(`query NAME{measurement(uid:"x"){...F0}}` + doubling(12, "a:"+page+" b:"+page)), "", false},
		{"one field 20,000 times", document("query NAME{" + strings.Repeat("__typename ", 20_000) + "}"), "over 20 s", false},
		{"one field 1,900 times", document("query NAME{" + strings.Repeat("__typename ", 1900) + "}"), "220 to 660 ms", false},
		{"5,000 overlapping objects", document("query NAME{" + strings.Repeat("viewer{probe{id}} ", 5000) + "}"), "3.9 s, or over 20 s", false},
		{"20,000 aliases", document("query NAME{" + repeated(20_000, func(i int) string { return fmt.Sprintf("a%d:__typename ", i) }) + "}"), "1.3 to 1.5 s, 329 KB answered", false},
		{"20,000 directives", document("query NAME{__typename" + strings.Repeat("@a", 20_000) + "}"), "95 to 720 ms, 3.4 to 5.9 MB answered", false},
		{"a list literal of 100,000 items", document("query NAME{nodes(ids:[" + strings.Repeat(`"a",`, 100_000) + "]){id}}"), "3 ms, or 7 to 20 s", false},
		{"introspection of itself", document("query NAME{__schema{types{...F}}} fragment F on __Type{fields{type{...F}}}"), "rejected", false},
		{"introspection, 10 times in all depth that is allowed", document("query NAME{" + repeated(10, func(i int) string {
			return fmt.Sprintf("a%d:__schema{types{name fields{name type{name kind ofType{name}}}}}", i)
		}) + "}"), "", true},
		{"600 names that are not there", document("query NAME{" + repeated(600, func(i int) string { return fmt.Sprintf("probe%d ", i) }) + "}"), "suggestions for each", false},
		{"200 KB that are not JSON", `{"query":"query NAME{viewer{role}}` + strings.Repeat("x", 200<<10), "answered with all of it", false},
		{"a batch of 1,000", "[" + strings.Repeat(`{"query":"query NAME{viewer{role}}"},`, 999) + `{"query":"{viewer{role}}"}]`, "refused", false},
		{"a hash that is not the document's", `{"query":"query NAME{viewer{role}}","extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + strings.Repeat("0", 64) + `"}}}`, "verified", false},
	}
}

// flooded is a document of nearly as many tokens as there may be, that is another each time.
func flooded(i int) string {
	return fmt.Sprintf("query Flood%d{nodes(ids:[%s]){id}}", i, strings.Repeat(`"a",`, 1900))
}

const (
	attackCPU   = "at most 50 ms and 10 KB wanted"
	queryTime   = 3 * time.Second
	askers      = 16 // as in the measurements to compare with
	explorer    = "query Explorer { measurements(first: 20) { edges { node { uid testName startedAt anomaly country { code name } network { asn } probe { id state } } } } }"
	board       = "query Board { probes(first: 20) { edges { node { id displayName state country { name } } } } }"
	floods      = 1500
	floodsTwice = 2 // a document must be seen again to be kept
)

// documents measures what documents cost that are made to hurt, and what normal ones do.
func (b *bench) documents(ctx context.Context) error {
	return b.withSubject(ctx, "documents", func(ctx context.Context, s *subject) error {
		token, err := s.token(ctx)
		if err != nil {
			return err
		}
		a := asker{s: s, token: token, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: askers}}}
		defer a.http.CloseIdleConnections()
		for _, x := range attacks() {
			cpu, answer, err := a.attack(ctx, x)
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			compared := attackCPU
			if x.paid {
				compared = "nothing that is refused: it is answered, for thousands of points"
			}
			if x.stock != "" {
				compared += "; stock: " + x.stock
			}
			b.row("a document of "+x.name+": CPU of the server, and answer", compared, "%s, %s", ms(cpu), answer)
		}
		if err := a.flood(ctx, b); err != nil {
			return err
		}
		if err := s.populate(ctx, token); err != nil {
			return err
		}
		for _, q := range []struct{ name, text, compared string }{
			{"20 measurements with country, network and probe", explorer, "of which limits and cost are BenchmarkGetCached and BenchmarkPrice above: at most 20 µs wanted"},
			{"20 probes with country", board, "measured before, alike: stock gqlgen 345 µs, GraphJin 175, Mercurius 370, PostGraphile 500"},
		} {
			cpu, perSecond, err := a.repeat(ctx, q.text)
			if err != nil {
				return err
			}
			b.row(fmt.Sprintf("a normal query, %s, on %d connections: CPU of the server, and requests", q.name, askers), q.compared, "%s, %.0f/s", us(cpu), perSecond)
		}
		return nil
	})
}

// An asker posts to /graphql.
type asker struct {
	s     *subject
	token string
	http  *http.Client
	asked int
}

// post returns the status and the answer.
func (a *asker) post(ctx context.Context, body string) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.s.api+"/graphql", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Authorization", "Bearer "+a.token)
	res, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// attack posts until there is enough to measure, and returns what one post costs the server.
func (a *asker) attack(ctx context.Context, x attack) (cpu time.Duration, said string, err error) {
	const enough, most, patience = 200 * time.Millisecond, 500, time.Second
	began, before := time.Now(), a.s.cpuTime()
	n, size, status := 0, 0, 0
	for n == 0 || n < most && a.s.cpuTime()-before < enough && time.Since(began) < patience {
		a.asked++
		var answer []byte
		if status, answer, err = a.post(ctx, strings.Replace(x.body, "NAME", fmt.Sprintf("N%d", a.asked), 1)); err != nil {
			return 0, "", err
		}
		size = max(size, len(answer))
		n++
	}
	cpu = (a.s.cpuTime() - before) / time.Duration(n)
	if !a.s.serves(ctx, "/readyz") {
		return 0, "", fmt.Errorf("the server is not ready any more")
	}
	return cpu, fmt.Sprintf("%d with %d bytes", status, size), nil
}

// flood has the server read many large documents twice, which it must not all remember.
func (a *asker) flood(ctx context.Context, b *bench) error {
	before, err := a.s.settled(ctx)
	if err != nil {
		return err
	}
	began, sent := a.s.cpuTime(), 0
	for i := range floods {
		body, err := json.Marshal(map[string]string{"query": flooded(i)})
		if err != nil {
			return err
		}
		for range floodsTwice {
			if _, _, err := a.post(ctx, string(body)); err != nil {
				return err
			}
			sent += len(body)
		}
	}
	cpu := (a.s.cpuTime() - began) / (floods * floodsTwice)
	resident, err := a.s.resident()
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("%d documents of 1,900 tokens, twice each (%.0f MB): CPU of the server per document, and resident memory after them", floods, float64(sent)/1e6),
		attackCPU+"; 20 to 114 times the text with a cache that counts documents", "%s, %.0f MB (%.0f MB before)", ms(cpu), resident, before)
	return nil
}

// repeat asks a query for a while, many at a time, and returns what one costs the server.
func (a *asker) repeat(ctx context.Context, text string) (cpu time.Duration, perSecond float64, err error) {
	body, err := json.Marshal(map[string]string{"query": text})
	if err != nil {
		return 0, 0, err
	}
	ask := func() error {
		status, answer, err := a.post(ctx, string(body))
		if err == nil && (status != http.StatusOK || bytes.Contains(answer, []byte(`"errors"`)) || bytes.Count(answer, []byte(`"node"`)) != 20) {
			err = fmt.Errorf("a query of 20 is answered %d %.300s", status, answer)
		}
		return err
	}
	all := func(length time.Duration) (n int64, err error) {
		var count atomic.Int64
		var group errgroup.Group
		end := time.Now().Add(length)
		for range askers {
			group.Go(func() error {
				for time.Now().Before(end) {
					if err := ask(); err != nil {
						return err
					}
					count.Add(1)
				}
				return nil
			})
		}
		err = group.Wait()
		return count.Load(), err
	}
	if _, err := all(queryTime / 6); err != nil { // until the document is known, and its statement to each connection
		return 0, 0, err
	}
	began, before := time.Now(), a.s.cpuTime()
	n, err := all(queryTime)
	if err != nil {
		return 0, 0, err
	}
	return (a.s.cpuTime() - before) / time.Duration(n), float64(n) / time.Since(began).Seconds(), nil
}

// populate has some probes measure.
func (s *subject) populate(ctx context.Context, token string) error {
	c := client.New(client.Options{BaseURL: "http://" + s.api, Token: token})
	for i := range 25 {
		r, err := c.Register(ctx, client.Registration{DisplayName: fmt.Sprint("probe ", i), Country: country.Code("IT"), ASN: network.ASN(64512 + i%3), Type: probe.Internal})
		if err != nil {
			return err
		}
		if err := c.Activate(ctx, r.ID); err != nil {
			return err
		}
		sub := &submitter{api: c.As(r.Secret), run: string(r.ID)}
		if _, err := sub.cause(ctx, 10); err != nil {
			return err
		}
	}
	return nil
}
