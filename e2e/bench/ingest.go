//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvantage/vantage/client"
)

// ingest measures submissions: so many connections send one body after the other, each as soon as
// the last is acknowledged.
func (b *bench) ingest(ctx context.Context) error {
	return b.withSubject(ctx, "ingest", func(ctx context.Context, s *subject) error {
		c, err := s.collectors(ctx)
		if err != nil {
			return err
		}
		progress("%d connections submit bodies of 6 kB for %s.", collectors, b.length)
		if _, err := c.load(ctx, s.api, 2*time.Second); err != nil { // until plans and connections are there
			return err
		}
		before, own, others := s.cpuTime(), ownTime(), stolen()
		began := time.Now()
		took, err := c.load(ctx, s.api, b.length)
		if err != nil {
			return err
		}
		n, length := len(took), time.Since(began)
		used, sent := s.cpuTime()-before, ownTime()-own
		resident, err := s.resident()
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("submissions of 6 kB by %d probes through GraphQL over HTTP, durable", collectors), "at least 2,500/s wanted; the peer's whole network: 19/s",
			"%.0f/s", float64(n)/length.Seconds())
		b.row("the same, from sending to the answer: p50, p99", "p99 of at most 100 ms wanted", "%s, %s", ms(at(took, 50)), ms(at(took, 99)))
		b.row("CPU of the server process for each; of the sender", "", "%s, %s", us(used/time.Duration(n)), us(sent/time.Duration(n)))
		b.row("resident memory under it", "at most 400 MB wanted", "%.0f MB", resident)
		if p := others.since(); p > 1 {
			b.row("taken by other machines meanwhile", "", "%.0f %%", p)
		}
		return nil
	})
}

// collectors is how many probes submit at a time.
const collectors = 100

// A crew is probes that submit, with what is the same in all their requests.
type crew struct {
	secrets    []string
	head, tail []byte // of the request's body, around what makes each another one
	sent       atomic.Int64
}

func (s *subject) collectors(ctx context.Context) (*crew, error) {
	token, err := s.token(ctx)
	if err != nil {
		return nil, err
	}
	api := client.New(client.Options{BaseURL: "http://" + s.api, Token: token})
	c := &crew{}
	for n := range collectors {
		r, err := api.Register(ctx, client.Registration{DisplayName: fmt.Sprintf("probe-%d", n), Country: "IT", ASN: 64512, Type: "COMMUNITY"})
		if err != nil {
			return nil, err
		}
		c.secrets = append(c.secrets, r.Secret)
	}
	const mark = "@@@@@@@@@@"
	request, err := json.Marshal(map[string]any{
		"query":     `mutation Submit($input: SubmitMeasurementInput!) { submitMeasurement(input: $input) { measurement { uid anomaly confirmed failure } duplicate discarded { uid reason message } userErrors { code field message retryAfterSeconds } } }`,
		"variables": map[string]any{"input": map[string]any{"content": typical(mark)}},
	})
	if err != nil {
		return nil, err
	}
	c.head, c.tail, _ = bytes.Cut(request, []byte(mark))
	return c, nil
}

// typical is a body of the size of the median of real ones, 6 kB, of web_connectivity.
func typical(report string) string {
	const page = "kQ3vX0 lorem ipsum 8f14e45fceea167a5a36dedd4bea2543 <div class=\"row\"> c9f0f895fb98ab9159f51fd0297e236d </div> "
	var queries, connects, requests []any
	for n := range 4 {
		ip := fmt.Sprintf("192.0.2.%d", n)
		answer := map[string]any{"answer_type": "A", "ipv4": ip, "asn": 64512, "as_org_name": "Example"}
		queries = append(queries, map[string]any{"engine": "system", "hostname": "www.example.org", "query_type": "A", "failure": nil, "answers": []any{answer}, "t": 0.01 * float64(n)})
		connects = append(connects, map[string]any{"ip": ip, "port": 443, "status": map[string]any{"success": true, "failure": nil}, "t": 0.1 * float64(n)})
	}
	var body string
	for len(body) < 3000 {
		body += page + strconv.Itoa(len(body)*len(body))
	}
	answer := map[string]any{"code": 200, "headers": map[string]any{"Server": "example", "Content-Type": "text/html"}, "body": body}
	requests = append(requests, map[string]any{"failure": nil, "request": map[string]any{"url": "https://www.example.org/", "method": "GET"}, "response": answer})
	b, _ := json.Marshal(map[string]any{ // always encodes
		"report_id": "20261121T000000Z_webconnectivity_IT_64512_n1_" + report, "test_name": "web_connectivity", "test_version": "0.4.3",
		"probe_cc": "IT", "probe_asn": "AS64512", "measurement_start_time": time.Now().UTC().Format(time.DateTime),
		"test_start_time": time.Now().UTC().Format(time.DateTime), "input": "https://www.example.org/", "software_name": "example", "software_version": "1.0",
		"annotations": map[string]any{"engine_name": "example", "engine_version": "1", "platform": "linux", "architecture": "arm64"},
		"test_keys": map[string]any{
			"accessible": true, "blocking": false, "control_failure": nil, "dns_experiment_failure": nil, "http_experiment_failure": nil,
			"title_match": true, "queries": queries, "tcp_connect": connects, "requests": requests,
		},
	})
	return string(b)
}

// load submits for so long and returns how long each body took.
func (c *crew) load(ctx context.Context, api string, length time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var all sync.WaitGroup
	for _, secret := range c.secrets {
		all.Go(func() {
			own, err := c.submit(ctx, api, secret)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			failed = errors.Join(failed, err)
		})
	}
	all.Wait()
	return took, failed
}

// submit speaks HTTP by itself: a client's ease would take much of the two cores that are measured.
func (c *crew) submit(ctx context.Context, api, secret string) (took []time.Duration, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", api)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	var out []byte
	for ctx.Err() == nil {
		out = fmt.Appendf(out[:0], "POST /graphql HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			api, secret, len(c.head)+len(c.tail)+10)
		out = append(out, c.head...)
		out = fmt.Appendf(out, "%010d", c.sent.Add(1))
		out = append(out, c.tail...)
		began := time.Now()
		if _, err := conn.Write(out); err != nil {
			return took, err
		}
		answer, err := read(answers)
		if err != nil {
			return took, err
		}
		if !bytes.Contains(answer, []byte(`"duplicate":false`)) || !bytes.Contains(answer, []byte(`"uid":"2`)) {
			return took, fmt.Errorf("a submission came to %s", answer)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// read is the body of an answer.
func read(r *bufio.Reader) ([]byte, error) {
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && string(name) == "Content-Length" {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body)
	return body, err
}
