package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
	"github.com/openvantage/vantage/service"
)

// patience is how long a test waits for what must come. It is only reached by what never does.
const patience = 20 * time.Second

type object = map[string]any

// An api is a server of its own, on a database of its own, with both its listeners.
type api struct {
	*server.Server
	sql  *pgxpool.Pool // beside the server, to look at what it stored
	http *http.Client
	logs *logs
	dsn  string
	stop func() error // ends Serve, and is what it returns
}

// logs collects what the server logs.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// config is the documented defaults, on ports that are free.
func config(t *testing.T) server.Config {
	t.Helper()
	return server.Config{
		Listen: "127.0.0.1:0", HeartbeatListen: "127.0.0.1:0", OpenCollector: true, PublicNetworks: access.Grouped,
		RatePublic: server.Rate{PerSecond: 2000, Burst: 200_000}, RateProbe: server.Rate{PerSecond: 1000, Burst: 100_000},
		RateResearcher: server.Rate{PerSecond: 5000, Burst: 500_000}, RateOperator: server.Rate{PerSecond: 50_000, Burst: 5_000_000},
		RateAdmin:            server.Rate{PerSecond: 50_000, Burst: 5_000_000},
		RegistrationsPerHour: 120, MaxMeasurementBytes: 4 << 20, MaxDocumentBytes: 256 << 10, MaxDatabaseConns: 8, CollectorID: 1, ClockRate: 1,
		ShutdownGrace: 5 * time.Second, ArchiveURL: archive.FolderURL(t.TempDir()),
	}
}

// start serves until the test ends.
func start(t *testing.T, change ...func(*server.Config)) *api {
	t.Helper()
	return startOn(t, dbtest.New(t), change...)
}

// startOn starts one more server on a database.
func startOn(t *testing.T, dsn string, change ...func(*server.Config)) *api {
	t.Helper()
	a := prepare(t, dsn, change...)
	a.run(t)
	return a
}

// prepare makes a server that must be run.
func prepare(t *testing.T, dsn string, change ...func(*server.Config)) *api {
	t.Helper()
	cfg := config(t)
	for _, c := range change {
		c(&cfg)
	}
	a := &api{dsn: dsn, logs: &logs{}, http: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 32},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	log := slog.New(slog.NewTextHandler(a.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if a.Server, err = server.New(t.Context(), cfg, dsn, "test", log); err != nil {
		t.Fatal(err)
	}
	if a.sql, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return a
}

// reactors is how many the service has.
const reactors = 5

// run serves until the test ends. A reactor begins where the log ends when it first runs: run waits for that, or one might
// miss what the test does first.
func (a *api) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- a.Serve(ctx) }()
	a.stop = sync.OnceValue(func() error {
		stop()
		return <-stopped
	})
	t.Cleanup(func() {
		a.http.CloseIdleConnections()
		if err := a.stop(); err != nil {
			t.Errorf("the server stopped with %v", err)
		}
		a.sql.Close()
	})
	eventually(t, "the reactors began", func() bool {
		var n int
		return a.sql.QueryRow(t.Context(), "select count(*) from reactor").Scan(&n) == nil && n == reactors
	})
}

// issue makes a token as the command line does.
func (a *api) issue(t *testing.T, r access.Role) string {
	t.Helper()
	issued, err := service.IssueToken(t.Context(), a.DB(), r, "a "+strings.ToLower(string(r)))
	if err != nil {
		t.Fatal(err)
	}
	return issued.Secret
}

// An answer is a response to GraphQL over HTTP.
type answer struct {
	Status int
	Header http.Header
	Raw    string
	Data   object    `json:"data"`
	Errors []problem `json:"errors"`
}

// A problem is one of a response's errors.
type problem struct {
	Message    string `json:"message"`
	Path       []any  `json:"path"`
	Extensions struct {
		Code       fault.Code `json:"code"`
		Field      string     `json:"field"`
		RetryAfter int        `json:"retryAfter"`
		RequestID  string     `json:"requestId"`
	} `json:"extensions"`
}

// send makes any request and reads the answer to its end.
func (a *api) send(t *testing.T, method, url string, header http.Header, body []byte) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	res, err := a.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func bearer(token string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}

// raw posts a body to /graphql as it is.
func (a *api) raw(t *testing.T, header http.Header, body []byte) answer {
	t.Helper()
	res, text := a.send(t, http.MethodPost, a.URL()+"/graphql", header, body)
	out := answer{Status: res.StatusCode, Header: res.Header, Raw: text}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%d %s: %v", res.StatusCode, text, err)
	}
	return out
}

// do runs a document with whatever outcome.
func (a *api) do(t *testing.T, token, document string, variables object) answer {
	t.Helper()
	b, err := json.Marshal(object{"query": document, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	return a.raw(t, bearer(token), b)
}

// ask runs a document that must succeed.
func (a *api) ask(t *testing.T, token, document string, variables object) object {
	t.Helper()
	r := a.do(t, token, document, variables)
	if len(r.Errors) > 0 || r.Status != http.StatusOK {
		t.Fatalf("%s\n%v\nanswered %d %s", document, variables, r.Status, r.Raw)
	}
	return r.Data
}

// wantFault fails unless the answer has one error, with that code and field.
func wantFault(t *testing.T, r answer, code fault.Code, field string) {
	t.Helper()
	if len(r.Errors) != 1 || r.Errors[0].Extensions.Code != code || r.Errors[0].Extensions.Field != field {
		t.Errorf("answered %d %s, want %s of %q", r.Status, r.Raw, code, field)
	}
}

// at follows a path of keys and indices into what was answered.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			o, _ := v.(object)
			next, ok := o[s]
			if !ok {
				t.Fatalf("there is no %v of %v in %v", step, path, v)
			}
			v = next
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				t.Fatalf("there is no %v of %v in %v", step, path, v)
			}
			v = l[s]
		}
	}
	return v
}

func str(t *testing.T, v any, path ...any) string {
	t.Helper()
	s, ok := at(t, v, path...).(string)
	if !ok {
		t.Fatalf("%v of %v is no text", path, v)
	}
	return s
}

func list(t *testing.T, v any, path ...any) []any {
	t.Helper()
	l, ok := at(t, v, path...).([]any)
	if !ok {
		t.Fatalf("%v of %v is no list", path, v)
	}
	return l
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// counts are the numbers of rows of everything that a submission or a mutation can write.
func (a *api) counts(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, table := range []string{"measurement", "body", "submission", "discarded_submission", "event", "probe", "token", "heartbeat", "idempotency"} {
		var n int
		if err := a.sql.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		out[table] = n
	}
	return out
}

func (a *api) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := a.sql.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// A probe is one that was registered.
type probe struct{ id, secret string }

const registerDocument = `mutation ($input: RegisterProbeInput!) { registerProbe(input: $input) {
	probe { id displayName lifecycle country { code } network { asn } contact } secret userErrors { code field message retryAfterSeconds } } }`

func (a *api) register(t *testing.T, country string, asn int) probe {
	t.Helper()
	data := a.ask(t, "", registerDocument, object{"input": object{"country": country, "asn": asn}})
	return probe{str(t, data, "registerProbe", "probe", "id"), str(t, data, "registerProbe", "secret")}
}

const activateDocument = `mutation ($id: ID!) { activateProbe(input: {probeId: $id}) { probe { id lifecycle } userErrors { code field } } }`

func (a *api) activate(t *testing.T, operator string, p probe) {
	t.Helper()
	if l := str(t, a.ask(t, operator, activateDocument, object{"id": p.id}), "activateProbe", "probe", "lifecycle"); l != "ACTIVE" {
		t.Fatalf("the probe became %s", l)
	}
}

const retireDocument = `mutation ($id: ID!) { retireProbe(input: {probeId: $id, reason: "It is old."}) { probe { id lifecycle } userErrors { code field } } }`

const beatDocument = `mutation ($input: HeartbeatInput!) { heartbeat(input: $input) {
	probe { id state lastHeartbeatAt } serverTime nextHeartbeatAfter userErrors { code field } } }`

func beat(p probe, country string, asn int) object {
	return object{
		"probeId": p.id, "probeCc": country, "probeAsn": asn, "softwareVersion": "1.2.3", "uptimeSeconds": 60, "queueDepth": 0,
	}
}

func (a *api) beat(t *testing.T, p probe, country string, asn int) object {
	t.Helper()
	data := a.ask(t, p.secret, beatDocument, object{"input": beat(p, country, asn)})
	return at(t, data, "heartbeat", "probe").(object)
}

var bodies atomic.Int64

// body is a measurement that nobody submitted before, with some fields changed; a nil one is
// left out.
func body(change object) string {
	n := bodies.Add(1)
	o := object{
		"report_id": "20261121T000000Z_telegram_IT_30722_n1_" + strconv.FormatInt(n, 10), "test_name": "telegram", "test_version": "0.3.1",
		"probe_cc": "IT", "probe_asn": "AS30722", "resolver_asn": "AS15169", "input": nil,
		"measurement_start_time": startedAt(n).Format("2006-01-02 15:04:05"), "test_start_time": startedAt(0).Format("2006-01-02 15:04:05"),
		"test_runtime": 1.5, "software_name": "tester", "software_version": "1.0.0",
		"annotations": object{"platform": "linux", "engine_name": "engine", "engine_version": "2.0"},
		"test_keys": object{
			"telegram_http_blocking": false, "telegram_tcp_blocking": false, "telegram_web_failure": nil, "telegram_web_status": "ok",
		},
	}
	for k, v := range change {
		if o[k] = v; v == nil {
			delete(o, k)
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // texts and numbers always encode
	}
	return string(b)
}

var bodiesBegan = time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Second)

// startedAt is when the nth body says that it began: each a second after the one before.
func startedAt(n int64) time.Time { return bodiesBegan.Add(time.Duration(n) * time.Second) }

const submitDocument = `mutation ($input: SubmitMeasurementInput!) { submitMeasurement(input: $input) {
	measurement { id uid anomaly confirmed failure provenance receivedAt scores { blockingGeneral accuracy } probe { id } }
	duplicate discarded { uid reason message } userErrors { code field message retryAfterSeconds } } }`

func (a *api) submit(t *testing.T, token, content string) object {
	t.Helper()
	data := a.ask(t, token, submitDocument, object{"input": object{"content": content}})
	out := at(t, data, "submitMeasurement").(object)
	if e := list(t, out, "userErrors"); len(e) > 0 {
		t.Fatalf("the submission failed with %v", e)
	}
	return out
}

// client is the project's own, for the websocket.
func (a *api) client(token string) *client.Client {
	return client.New(client.Options{BaseURL: a.URL(), Token: token, HTTPClient: a.http})
}

// subscribe follows a subscription until the test ends.
func (a *api) subscribe(t *testing.T, token, document string, variables object) *client.Subscription {
	t.Helper()
	s, err := a.client(token).Subscribe(t.Context(), document, variables)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// next is the next message of a subscription, which must come.
func next(t *testing.T, s *client.Subscription) object {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var data json.RawMessage
	if err := s.Next(ctx, &data); err != nil {
		t.Fatalf("waiting for a message: %v", err)
	}
	return decoded(t, data)
}

// until has something happen until the subscription tells of it: without a cursor, nobody is told when one has begun.
func until(t *testing.T, s *client.Subscription, act func()) object {
	t.Helper()
	var data json.RawMessage
	eventually(t, "the subscription tells of what happens", func() bool {
		act()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return s.Next(ctx, &data) == nil
	})
	return decoded(t, data)
}

func decoded(t *testing.T, data json.RawMessage) object {
	t.Helper()
	out := object{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// end is how a subscription ends, which must come before another message.
func end(t *testing.T, s *client.Subscription) *fault.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.Next(ctx, nil)
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("the subscription ended with %v, want a fault", err)
	}
	return f
}

// eventually tries until ok, as often as the scheduler lets it.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-tick.C
	}
}

// newServer makes a server that is expected not to start.
func newServer(t *testing.T, cfg server.Config) (*server.Server, error) {
	t.Helper()
	return server.New(t.Context(), cfg, dbtest.New(t), "test", slog.New(slog.DiscardHandler))
}

// cutOff takes the database away from the server, for good.
func (a *api) cutOff(t *testing.T) {
	t.Helper()
	u, err := url.Parse(a.dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.Path = "/postgres"
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // nothing depends on it
	if _, err := conn.Exec(t.Context(), "alter database "+name+" allow_connections false"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", name); err != nil {
		t.Fatal(err)
	}
}

// relayed waits until the server's subscribers have been told all that is in the log, so that
// the next one begins after it.
func (a *api) relayed(t *testing.T) {
	t.Helper()
	var seq int64
	if err := a.sql.QueryRow(t.Context(), "select max(seq) from event").Scan(&seq); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log is relayed", func() bool {
		_, text := a.send(t, http.MethodGet, a.URL()+"/metrics", nil, nil)
		return strings.Contains(text, fmt.Sprintf("\nvantage_log_seq %d\n", seq))
	})
}
