package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

// An ooniProbe is an unmodified probe of the established network, as far as a server sees of it.
type ooniProbe struct {
	*api
	version string
}

// call makes a request with the headers of miniooni, and decodes the answer.
func (p ooniProbe) call(t *testing.T, method, path, token string, post any) (*http.Response, object) {
	t.Helper()
	h := http.Header{
		"User-Agent": {"miniooni/" + p.version + " ooniprobe-engine/" + p.version}, "Accept-Encoding": {"gzip"},
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	var b []byte
	if post != nil {
		h.Set("Content-Type", "application/json")
		var ok bool
		if b, ok = post.([]byte); !ok {
			var err error
			if b, err = json.Marshal(post); err != nil {
				t.Fatal(err)
			}
		}
	}
	res, text := p.send(t, method, p.URL()+path, h, b)
	out := object{}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s %s answered %d %s: %v", method, path, res.StatusCode, text, err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s answered %s", method, path, got)
	}
	return res, out
}

// ask is a call that must succeed: clients take any status but 200 for a failure.
func (p ooniProbe) ask(t *testing.T, method, path, token string, post any) object {
	t.Helper()
	res, out := p.call(t, method, path, token, post)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s answered %d %v", method, path, res.StatusCode, out)
	}
	return out
}

// openReport is a call with the nine fields of a measurement.
func (p ooniProbe) openReport(t *testing.T, m object) string {
	t.Helper()
	out := p.ask(t, http.MethodPost, "/report", "", object{
		"data_format_version": "0.2.0", "format": "json", "probe_asn": m["probe_asn"], "probe_cc": m["probe_cc"], "software_name": m["software_name"],
		"software_version": m["software_version"], "test_name": m["test_name"], "test_start_time": m["test_start_time"], "test_version": m["test_version"],
	})
	equal(t, out["backend_version"], any("1.3.5"))
	if formats := list(t, out, "supported_formats"); len(formats) == 0 || formats[len(formats)-1] != "json" {
		t.Fatalf("no JSON among %v", formats)
	}
	return str(t, out, "report_id")
}

// sendOld sends a measurement as v3.29.1 does, and sendNew as v3.31; each returns its uid, report id and body.
func (p ooniProbe) sendOld(t *testing.T, content string) (uid, id, stored string) {
	t.Helper()
	var m object
	if err := json.Unmarshal([]byte(content), &m); err != nil {
		t.Fatal(err)
	}
	id = p.openReport(t, m)
	stored = regexp.MustCompile(`"report_id":\s?"[^"]*"`).ReplaceAllString(content, `"report_id":"`+id+`"`)
	out := p.ask(t, http.MethodPost, "/report/"+id, "", []byte(`{"format":"json","content":`+stored+`}`))
	equal(t, len(out), 1)
	return str(t, out, "measurement_uid"), id, stored
}

func (p ooniProbe) sendNew(t *testing.T, content string) (uid, id, stored string) {
	t.Helper()
	content = regexp.MustCompile(`"report_id":\s?"[^"]*"`).ReplaceAllString(content, `"report_id":""`)
	out := p.ask(t, http.MethodPost, "/api/v1/submit_measurement", "", object{
		"format": "json", "content": content, "nym": nil, "zkp_request": nil, "manifest_version": nil, "protocol_version": nil,
	})
	uid, id = str(t, out, "measurement_uid"), str(t, out, "report_id")
	equal(t, out, object{
		"measurement_uid": uid, "report_id": id, "verification_status": "unverified", "submit_response": nil, "protocol_version": "", "error": nil,
	})
	return uid, id, strings.Replace(content, `"report_id":""`, `"report_id":"`+id+`"`, 1)
}

const scoredDocument = `subscription ($after: Cursor) { measurementScored(after: $after) { measurement {
	uid reportId input testName anomaly confirmed failure provenance scores { blockingGeneral } } } }`

// servicesFile is a setting with what the tor test asks for.
func servicesFile(t *testing.T) func(*server.Config) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "services.json")
	if err := os.WriteFile(name, []byte(`{
		"test_helpers": {"web-connectivity": [{"address": "https://helper.example.org", "type": "https"}]},
		"collectors": [{"address": "https://collector.example.org", "type": "https"}], "collector_id": "x7",
		"tor_targets": {"one": {"address": "192.0.2.1:443", "fingerprint": "F", "name": "bridge", "protocol": "obfs4", "params": {"iat-mode": ["0"]}}},
		"psiphon_config": {"a": [1]}
	}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *server.Config) { c.ProbeServicesFile = name }
}

// web is a measurement of a website with that verdict of the probe's.
func web(blocking any) string { return webOf("http://example.org/", blocking) }

func webOf(input string, blocking any) string {
	return body(object{
		"test_name": "web_connectivity", "input": input, "data_format_version": "0.2.0",
		"test_keys": object{"accessible": blocking == false, "blocking": blocking},
	})
}

// A checkedIn is what both generations read of a check-in, with their types: what is there and does not fit stops a run.
type checkedIn struct {
	Conf struct {
		Features    map[string]bool `json:"features"`
		TestHelpers map[string][]struct {
			Address string `json:"address"`
			Type    string `json:"type"`
			Front   string `json:"front"`
		} `json:"test_helpers"`
	} `json:"conf"`
	ProbeASN string `json:"probe_asn"`
	ProbeCC  string `json:"probe_cc"`
	Tests    struct {
		WebConnectivity *struct {
			ReportID string `json:"report_id"`
			URLs     []struct {
				CategoryCode string `json:"category_code"`
				CountryCode  string `json:"country_code"`
				URL          string `json:"url"`
			} `json:"urls"`
		} `json:"web_connectivity"`
	} `json:"tests"`
	UTCTime time.Time `json:"utc_time"`
	V       int64     `json:"v"`
}

// checkIn asks what to measure, as miniooni does for a person in Italy, and returns the URLs.
func (p ooniProbe) checkIn(t *testing.T) []string {
	t.Helper()
	answer := p.ask(t, http.MethodPost, "/api/v1/check-in", "", object{
		"charging": true, "on_wifi": true, "platform": "linux", "probe_asn": "AS30722", "probe_cc": "IT", "run_type": "manual",
		"software_name": "miniooni", "software_version": p.version, "web_connectivity": object{"category_codes": []string{}},
	})
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	var out checkedIn
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("a probe cannot read %s: %v", text, err)
	}
	if out.V != 1 || out.ProbeCC != "ZZ" || out.ProbeASN != "AS0" || time.Since(out.UTCTime).Abs() > time.Minute {
		t.Errorf("version %d, seen in %s on %s at %v", out.V, out.ProbeCC, out.ProbeASN, out.UTCTime)
	}
	equal(t, out.Conf.Features, map[string]bool{"torsf_enabled": false, "vanilla_tor_enabled": false, "openvpn_enabled": false, "webconnectivity_0.5": false})
	if helpers := out.Conf.TestHelpers["web-connectivity"]; len(helpers) != 1 || helpers[0].Address != "https://helper.example.org" || helpers[0].Type != "https" {
		t.Errorf("the helpers are %v", helpers)
	}
	tests := out.Tests.WebConnectivity
	if tests == nil || !strings.Contains(tests.ReportID, "_webconnectivity_IT_30722_nx7_") || len(tests.URLs) == 0 {
		t.Fatalf("there is nothing to measure in %s", text)
	}
	var urls []string
	for _, u := range tests.URLs {
		if u.CategoryCode == "" || u.CountryCode != "IT" && u.CountryCode != "XX" {
			t.Errorf("%s has the category %q and the country %q", u.URL, u.CategoryCode, u.CountryCode)
		}
		urls = append(urls, u.URL)
	}
	return urls
}

// TestUnmodifiedProbe replays request by request what probes of two generations send.
//
//nolint:paralleltest,tparallel // one subscriber hears of all in order
func TestUnmodifiedProbe(t *testing.T) {
	t.Parallel()
	a := withLists(t, 3, servicesFile(t))
	scored := a.subscribe(t, "", scoredDocument, object{"after": a.origin(t)})

	for _, g := range []struct {
		version string
		send    func(ooniProbe, *testing.T, string) (uid, id, stored string)
	}{{"3.31.0", ooniProbe.sendNew}, {"3.29.1", ooniProbe.sendOld}} {
		p := ooniProbe{a, g.version}
		var urls []string
		t.Run(g.version+" finds the service, checks in, registers, logs in and gets its targets", func(t *testing.T) {
			helpers := p.ask(t, http.MethodGet, "/api/v1/test-helpers", "", nil)
			equal(t, helpers, object{"web-connectivity": []any{object{"address": "https://helper.example.org", "type": "https"}}})
			urls = p.checkIn(t)
			equal(t, len(urls), 5)
			if g.version > "3.30" {
				res, _ := p.call(t, http.MethodGet, "/api/v1/manifest", "", nil)
				equal(t, res.StatusCode, http.StatusNotFound)
			}
			id := str(t, p.ask(t, http.MethodPost, "/api/v1/register", "", object{
				"platform": "linux", "probe_asn": "AS0", "probe_cc": "ZZ", "software_name": "miniooni", "software_version": g.version,
				"supported_tests": []string{"tor", "web_connectivity"}, "password": "very-private",
			}), "client_id")
			in := p.ask(t, http.MethodPost, "/api/v1/login", "", object{"username": id, "password": "very-private"})
			if until, err := time.Parse(time.RFC3339, str(t, in, "expire")); err != nil || until.Before(time.Now().Add(6*24*time.Hour)) {
				t.Errorf("the token is good until %v, %v", until, err)
			}
			targets := p.ask(t, http.MethodGet, "/api/v1/test-list/tor-targets?country_code=IT", str(t, in, "token"), nil)
			equal(t, targets, object{"one": object{
				"address": "192.0.2.1:443", "fingerprint": "F", "name": "bridge", "protocol": "obfs4", "params": object{"iat-mode": []any{"0"}},
			}})
			equal(t, p.ask(t, http.MethodGet, "/api/v1/test-list/psiphon-config", str(t, in, "token"), nil), object{"a": []any{1.0}})
		})
		if len(urls) == 0 {
			return
		}
		for _, c := range []struct {
			name     string
			blocking any
			anomaly  bool
		}{{"an accessible website", false, false}, {"the same with a censor in between", "dns", true}} {
			t.Run(g.version+" submits "+c.name+", and a subscriber hears the verdict", func(t *testing.T) {
				uid, id, stored := g.send(p, t, webOf(urls[0], c.blocking))
				blocking := json.Number("0")
				if c.anomaly {
					blocking = "1"
				}
				equal(t, next(t, scored), object{"measurementScored": object{"measurement": object{
					"uid": uid, "reportId": id, "input": urls[0], "testName": "web_connectivity", "anomaly": c.anomaly, "confirmed": false, "failure": false,
					"provenance": "ANONYMOUS", "scores": object{"blockingGeneral": blocking},
				}}})
				_, raw := a.send(t, http.MethodGet, a.URL()+"/api/v1/raw_measurement?measurement_uid="+uid, nil, nil)
				equal(t, raw, stored)
				if !strings.Contains(id, "_webconnectivity_IT_30722_nx7_") {
					t.Errorf("the report is %s", id)
				}
				equal(t, p.ask(t, http.MethodGet, "/api/_/check_report_id?report_id="+id, "", nil), object{"found": true, "v": 0.0})
			})
		}
	}
	t.Run("nothing that probes keep to themselves is logged or stored", func(t *testing.T) {
		if strings.Contains(a.logs.String(), "very-private") {
			t.Error("the password is in the log")
		}
		equal(t, a.counts(t)["token"], 0)
	})
}

//nolint:paralleltest,tparallel // one subscriber hears of all in order
func TestRealBodiesOfProbes(t *testing.T) {
	t.Parallel()
	root := os.Getenv("VANTAGE_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "shared")
	}
	dir := filepath.Join(root, "data", "ooni")
	paths, err := filepath.Glob(filepath.Join(dir, "measurements", "probe-cli__*.json"))
	if err != nil || len(paths) == 0 {
		t.Skipf("no real bodies: set VANTAGE_SHARED to the folder that has data/ooni: %v", err)
	}
	a := start(t)
	scored := a.subscribe(t, "", scoredDocument, object{"after": a.origin(t)})
	at := regexp.MustCompile(`"(measurement|test)_start_time":(\s*)"[^"]*"`)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var want struct{ Anomaly, Confirmed, Failure bool }
		expected, err := os.ReadFile(filepath.Join(dir, "expected", filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(expected, &want); err != nil {
			t.Fatal(err)
		}
		content := at.ReplaceAllString(string(raw), `"${1}_start_time":${2}"`+time.Now().UTC().Format("2006-01-02 15:04:05")+`"`)
		for version, send := range map[string]func(ooniProbe, *testing.T, string) (string, string, string){
			"3.31.0": ooniProbe.sendNew, "3.29.1": ooniProbe.sendOld,
		} {
			t.Run(version+" "+filepath.Base(path), func(t *testing.T) {
				uid, id, stored := send(ooniProbe{a, version}, t, strings.TrimSpace(content))
				m := next(t, scored)["measurementScored"].(object)["measurement"].(object)
				equal(t, []any{m["uid"], m["reportId"], m["anomaly"], m["confirmed"], m["failure"]}, []any{uid, id, want.Anomaly, want.Confirmed, want.Failure})
				if _, raw := a.send(t, http.MethodGet, a.URL()+"/api/v1/raw_measurement?measurement_uid="+uid, nil, nil); raw != stored {
					t.Error("the body that is stored is another")
				}
			})
		}
	}
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

//nolint:paralleltest,tparallel // rows are counted before and after each
func TestSubmissionsOfProbes(t *testing.T) {
	t.Parallel()
	a := start(t)
	p := ooniProbe{a, "3.31.0"}
	id := p.openReport(t, object{"probe_cc": "IT", "probe_asn": "AS30722", "test_name": "web_connectivity"})
	content := strings.Replace(web(false), "20261121T000000Z_telegram", "20261121T000000Z_webconnectivity", 1)
	content = regexp.MustCompile(`"report_id":"[^"]*"`).ReplaceAllString(content, `"report_id":"`+id+`"`)
	entry := `{"format":"json","content":` + content + `}`
	post := func(t *testing.T, path, encoding string, b []byte) (*http.Response, object) {
		t.Helper()
		h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
		if encoding != "" {
			h.Set("Content-Encoding", encoding)
		}
		res, text := a.send(t, http.MethodPost, a.URL()+path, h, b)
		out := object{}
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%d %s: %v", res.StatusCode, text, err)
		}
		return res, out
	}

	t.Run("the same entry is one measurement, however often and however packed", func(t *testing.T) {
		_, first := post(t, "/report/"+id, "", []byte(entry))
		uid := str(t, first, "measurement_uid")
		before := a.counts(t)
		for encoding, b := range map[string][]byte{
			"identity": []byte(entry), "gzip": gzipped(t, []byte(entry)), "zstd": zstandard(t, []byte(entry)), "": []byte(content),
		} {
			_, again := post(t, "/report/"+id, encoding, b)
			equal(t, again, object{"measurement_uid": uid})
		}
		equal(t, at(t, a.submit(t, "", content), "measurement", "uid"), any(uid))
		equal(t, a.counts(t), before)
	})

	t.Run("the same submission is one measurement, too", func(t *testing.T) {
		content := web("http-diff")
		uid, id, _ := p.sendNew(t, content)
		before := a.counts(t)
		again, same, _ := p.sendNew(t, content)
		equal(t, []string{again, same}, []string{uid, id})
		out := p.ask(t, http.MethodPost, "/api/v1/submit_measurement", "", object{
			"format": "json", "content": regexp.MustCompile(`"report_id":"[^"]*"`).ReplaceAllString(content, `"report_id":""`),
			"nym": "a-nym-to-be-dropped", "zkp_request": "a-proof", "manifest_version": "1", "protocol_version": "0.2",
		})
		equal(t, []any{out["measurement_uid"], out["verification_status"], out["error"]}, []any{uid, "unverified", "manifest_not_found"})
		equal(t, a.counts(t), before)
		if strings.Contains(a.logs.String(), "a-nym") {
			t.Error("the nym is in the log")
		}
	})

	t.Run("who does not know where it is gets nothing, and its measurement is kept aside", func(t *testing.T) {
		for reason, place := range map[string][2]string{"COUNTRY_UNKNOWN": {"ZZ", "AS30722"}, "NETWORK_UNKNOWN": {"IT", "AS0"}} {
			before := a.counts(t)
			nowhere := object{"probe_cc": place[0], "probe_asn": place[1], "test_name": "telegram"}
			id := p.openReport(t, nowhere)
			nowhere["report_id"] = id
			content := body(nowhere)
			equal(t, p.ask(t, http.MethodPost, "/report/"+id, "", []byte(`{"format":"json","content":`+content+`}`)), object{})
			var stored string
			if err := a.sql.QueryRow(t.Context(), "select reason from discarded_submission order by received_at desc limit 1").Scan(&stored); err != nil || stored != reason {
				t.Errorf("kept for %s, %v, want %s", stored, err, reason)
			}
			out := p.ask(t, http.MethodPost, "/api/v1/submit_measurement", "", object{"format": "json", "content": content})
			if out["error"] == nil || out["measurement_uid"] == nil {
				t.Errorf("answered %v", out)
			}
			after := a.counts(t)
			equal(t, []int{after["discarded_submission"] - before["discarded_submission"], after["body"] - before["body"], after["measurement"] - before["measurement"]}, []int{2, 2, 0})
		}
		id := p.openReport(t, object{"probe_cc": "Italy", "probe_asn": "30722", "test_name": "telegram"})
		if !strings.Contains(id, "_telegram_ZZ_0_n1_") {
			t.Errorf("a report of nowhere is %s", id)
		}
	})

	t.Run("an entry that names no report is given the one that it was sent to", func(t *testing.T) {
		out := p.ask(t, http.MethodPost, "/report/"+id, "", []byte(`{"format":"json","content":`+body(object{"report_id": nil, "test_name": "web_connectivity"})+`}`))
		data := a.ask(t, "", `query ($uid: ID!) { measurement(uid: $uid) { reportId } }`, object{"uid": out["measurement_uid"]})
		equal(t, at(t, data, "measurement", "reportId"), any(id))
	})

	t.Run("closing a report is nothing", func(t *testing.T) {
		before := a.counts(t)
		_, out := post(t, "/report/"+id+"/close", "", nil)
		equal(t, out, object{})
		equal(t, a.counts(t), before)
	})

	big := strings.Replace(web(false), `"accessible"`, `"x":"`+strings.Repeat("y", 5<<20)+`","accessible"`, 1)
	submission := func(content string) []byte {
		return []byte(`{"format":"json","content":` + quoted(content) + `}`)
	}
	change := func(from, to string) []byte {
		if !strings.Contains(entry, from) {
			t.Fatalf("there is no %s in %s", from, entry)
		}
		return []byte(strings.Replace(entry, from, to, 1))
	}
	zeros := make([]byte, 64<<20)
	const direct = "/api/v1/submit_measurement"
	for _, c := range []struct {
		name, path, encoding string
		post                 []byte
		status               int
		field                string
	}{
		{"an entry of another country", "/report/" + id, "", change(`"probe_cc":"IT"`, `"probe_cc":"FR"`), 400, "content.probe_cc"},
		{"an entry of another network", "/report/" + id, "", change(`AS30722`, `AS1`), 400, "content.probe_asn"},
		{"an entry of another test", "/report/" + id, "", change(`"web_connectivity"`, `"telegram"`), 400, "content.test_name"},
		{"an entry of another's report", "/report/" + strings.Replace(id, "_IT_30722_n1_", "_IT_30722_n1_x", 1), "", []byte(entry), 400, "content.report_id"},
		{"an entry of no country", "/report/" + id, "", change(`"probe_cc":"IT"`, `"probe_cc":null`), 400, "content.probe_cc"},
		{"a country in lower case", "/report/" + id, "", change(`"probe_cc":"IT"`, `"probe_cc":"it"`), 400, "content.probe_cc"},
		{"a network without AS", "/report/" + id, "", change(`AS30722`, `30722`), 400, "content.probe_asn"},
		{"a report id of five parts", "/report/a_b_c_d_e", "", []byte(entry), 400, "report_id"},
		{"a report id of no network", "/report/t_telegram_IT_x_n1_y", "", []byte(entry), 400, "report_id"},
		{"an entry that is a text", "/report/" + id, "", []byte(`{"format":"json","content":"x"}`), 400, "content"},
		{"an entry in YAML", "/report/" + id, "", []byte(`{"format":"yaml","content":"a: 1"}`), 400, "format"},
		{"an entry that is cut short", "/report/" + id, "", []byte(`{"format":"json","content":{"a": "b`), 400, "content.a"},
		{"nothing", "/report/" + id, "", nil, 400, "body"},
		{"a time that is none", "/report/" + id, "", change(`"test_start_time":"`, `"test_start_time":"x`), 400, "content.test_start_time"},
		{"a huge field", "/report/" + id, "", change(`"software_name":"`, `"software_name":"`+strings.Repeat("x", 3000)), 400, "content.software_name"},
		{"a huge measurement", "/report/" + id, "", []byte(strings.Replace(`{"format":"json","content":`+big+`}`, big, regexp.MustCompile(`"report_id":"[^"]*"`).ReplaceAllString(big, `"report_id":"`+id+`"`), 1)), 400, "content"},
		{"a huge post", "/report/" + id, "", zeros[:10<<20], 413, "body"},
		{"gzip that is cut short", "/report/" + id, "gzip", gzipped(t, []byte(entry))[:100], 400, "body"},
		{"gzip that is none", "/report/" + id, "gzip", []byte(entry), 400, "body"},
		{"zstd that is cut short", "/report/" + id, "zstd", zstandard(t, []byte(entry))[:100], 400, "body"},
		{"zstd that is none", "/report/" + id, "zstd", []byte(entry), 400, "body"},
		{"a bomb of gzip", "/report/" + id, "gzip", gzipped(t, zeros), 413, "body"},
		{"a bomb of zstd", "/report/" + id, "zstd", zstandard(t, zeros), 413, "body"},
		{"zstd that looks back too far", direct, "zstd", zstandard(t, zeros, zstd.WithWindowSize(64<<20)), 400, "body"},
		{"another packing", "/report/" + id, "br", []byte(entry), 415, "Content-Encoding"},
		{"gzip in gzip", "/report/" + id, "gzip, gzip", gzipped(t, gzipped(t, []byte(entry))), 415, "Content-Encoding"},
		{"a submission of an object", direct, "", []byte(entry), 400, "content"},
		{"a submission without format", direct, "", []byte(`{"content":"{}"}`), 400, "format"},
		{"a submission of nothing", direct, "", submission(""), 400, "content"},
		{"a submission of no test", direct, "", submission(`{"probe_cc":"IT","probe_asn":"AS1"}`), 400, "content.test_name"},
		{"a submission in lower case", direct, "", submission(body(object{"probe_cc": "it"})), 400, "content.probe_cc"},
		{"a submission of a country of three", direct, "", submission(body(object{"probe_cc": "ITA"})), 400, "content.probe_cc"},
		{"half a surrogate pair", direct, "", []byte(`{"format":"json","content":"{\"a\":\"\ud800\"}"}`), 400, "content.a"},
		{"a submission that is too large", direct, "", submission(big), 400, "content"},
		{"a bomb as a submission", direct, "gzip", gzipped(t, zeros), 413, "body"},
	} {
		t.Run(c.name+" is refused and leaves nothing", func(t *testing.T) {
			before := a.counts(t)
			res, out := post(t, c.path, c.encoding, c.post)
			if res.StatusCode != c.status {
				t.Errorf("answered %d %v, want %d", res.StatusCode, out, c.status)
			}
			equal(t, at(t, out, "error", "code"), any("INVALID"))
			equal(t, at(t, out, "error").(object)["field"], any(c.field))
			equal(t, a.counts(t), before)
		})
	}

	t.Run("another content type is refused", func(t *testing.T) {
		res, text := a.send(t, http.MethodPost, a.URL()+"/report/"+id, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(entry))
		if res.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(text, "Content-Type") {
			t.Errorf("answered %d %s", res.StatusCode, text)
		}
	})
	t.Run("another method is refused", func(t *testing.T) {
		for path, allowed := range map[string]string{"/report": "POST", "/report/" + id: "POST", "/api/v1/update/x": "PUT", "/bouncer/net-tests": "POST", "/api/v1/test-helpers": "GET"} {
			res, _ := a.send(t, http.MethodDelete, a.URL()+path, nil, nil)
			equal(t, []any{res.StatusCode, res.Header.Get("Allow")}, []any{http.StatusMethodNotAllowed, allowed})
		}
		res, _ := a.send(t, http.MethodPost, a.URL()+"/report/"+id+"/x", nil, nil)
		equal(t, res.StatusCode, http.StatusNotFound)
	})
	t.Run("who spends too much is told when to come back", func(t *testing.T) {
		b := start(t, func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: 0.01, Burst: 12} })
		p := ooniProbe{b, "3.31.0"}
		p.sendNew(t, web(false))
		p.sendNew(t, web(false))
		before := b.counts(t)
		res, out := p.call(t, http.MethodPost, direct, "", submission(web(false)))
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" || res.Header.Get("X-Ratelimit-Remaining") != "2" {
			t.Errorf("answered %d %v %v", res.StatusCode, res.Header, out)
		}
		equal(t, b.counts(t), before)
	})
	t.Run("a closed collector takes nothing of strangers", func(t *testing.T) {
		b := start(t, func(c *server.Config) { c.OpenCollector = false })
		before := b.counts(t)
		res, _ := ooniProbe{b, "3.31.0"}.call(t, http.MethodPost, direct, "", submission(web(false)))
		equal(t, res.StatusCode, http.StatusUnauthorized)
		equal(t, b.counts(t), before)
		own := b.register(t, "IT", 30722)
		ooniProbe{b, "3.31.0"}.ask(t, http.MethodPost, direct, own.secret, submission(web(false)))
	})
	t.Run("what cannot be stored is to be sent again", func(t *testing.T) {
		b := start(t)
		b.cutOff(t)
		for path, post := range map[string][]byte{direct: submission(web(false)), "/report/" + id: []byte(entry)} {
			res, out := ooniProbe{b, "3.31.0"}.call(t, http.MethodPost, path, "", post)
			if res.StatusCode < 500 || res.Header.Get("Retry-After") == "" {
				t.Errorf("answered %d %v %v", res.StatusCode, res.Header, out)
			}
		}
	})
}

func TestProbeLogin(t *testing.T) {
	t.Parallel()
	a := start(t, servicesFile(t))
	p := ooniProbe{a, "3.31.0"}
	const targets = "/api/v1/test-list/tor-targets"
	login := func(t *testing.T, username string) (int, object) {
		t.Helper()
		res, out := p.call(t, http.MethodPost, "/api/v1/login", "", object{"username": username, "password": "p"})
		return res.StatusCode, out
	}
	id := str(t, p.ask(t, http.MethodPost, "/api/v1/register", "", object{"password": "p", "platform": "linux"}), "client_id")

	t.Run("ids that others gave are as good, and forged ones are not", func(t *testing.T) {
		t.Parallel()
		for username, want := range map[string]int{
			id: 200, "an-old-probe": 200, "eyJhbGciOiJIUzI1NiJ9.e30.x": 200, id + "A": 401, id[:30]: 401, "": 401,
		} {
			if status, out := login(t, username); status != want {
				t.Errorf("%q got %d %v, want %d", username, status, out, want)
			}
		}
		res, _ := p.call(t, http.MethodPost, "/api/v1/login", "", object{"username": id})
		equal(t, res.StatusCode, http.StatusUnauthorized)
	})
	t.Run("a token is good at each server of the database, and for no right", func(t *testing.T) {
		t.Parallel()
		_, in := login(t, id)
		token := str(t, in, "token")
		other := ooniProbe{startOn(t, a.dsn, servicesFile(t)), "3.31.0"}
		other.ask(t, http.MethodGet, targets, token, nil)
		equal(t, at(t, a.ask(t, token, "{ viewer { role } }", nil), "viewer", "role"), any(string(access.Public)))
	})
	t.Run("without a good token there are no targets", func(t *testing.T) {
		t.Parallel()
		_, in := login(t, id)
		token := str(t, in, "token")
		forged := token[:len(token)-3] + "AAA"
		if forged == token { // one of some hundred thousand
			forged = token[:len(token)-3] + "BBB"
		}
		for name, bad := range map[string]string{"none": "", "a client id": id, "a forged one": forged, "another's": "eyJhbGciOiJIUzI1NiJ9.e30.x"} {
			res, out := p.call(t, http.MethodGet, targets, bad, nil)
			if res.StatusCode != http.StatusUnauthorized || at(t, out, "error", "code") != string(fault.Unauthenticated) {
				t.Errorf("%s: %d %v", name, res.StatusCode, out)
			}
		}
	})
}

func TestProbeServices(t *testing.T) {
	t.Parallel()
	a := start(t, servicesFile(t))
	p := ooniProbe{a, "3.31.0"}

	t.Run("an old probe's bouncer names helpers and collectors", func(t *testing.T) {
		t.Parallel()
		out := p.ask(t, http.MethodPost, "/bouncer/net-tests", "", object{"net-tests": []object{{"name": "web_connectivity", "version": "0.1"}, {"name": "ndt", "version": "2"}}})
		equal(t, at(t, out, "net-tests", 0), any(object{
			"name": "web_connectivity", "version": "0.1", "collector": "https://collector.example.org", "input-hashes": nil,
			"collector-alternate":    []any{object{"address": "https://collector.example.org", "type": "https"}},
			"test-helpers":           object{"web-connectivity": "https://helper.example.org"},
			"test-helpers-alternate": object{"web-connectivity": []any{object{"address": "https://helper.example.org", "type": "https"}}},
		}))
		equal(t, at(t, out, "net-tests", 1, "name"), any("ndt"))
		_, text := a.send(t, http.MethodGet, a.URL()+"/api/v1/collectors", nil, nil)
		equal(t, strings.TrimSpace(text), `[{"address":"https://collector.example.org","type":"https"}]`)
	})
	t.Run("addresses are placed, in the spelling of the question, and never logged", func(t *testing.T) {
		t.Parallel()
		out := p.ask(t, http.MethodPost, "/api/v1/geolookup", "", object{"addresses": []string{"127.0.0.1", "2001:DB8::1"}})
		nowhere := object{"cc": "ZZ", "asn": 0.0, "as_name": nil}
		equal(t, out, object{"v": 1.0, "geolocation": object{"127.0.0.1": nowhere, "2001:DB8::1": nowhere}})
		res, out := p.call(t, http.MethodPost, "/api/v1/geolookup", "", object{"addresses": []string{"127.0.0.1", "198.51.100.300"}})
		equal(t, []any{res.StatusCode, at(t, out, "error", "field")}, []any{400, "addresses.1"})
		if strings.Contains(a.logs.String(), "2001:") || strings.Contains(a.logs.String(), "198.51") {
			t.Error("an address is in the log")
		}
	})
	t.Run("what is not there or malformed is told as such", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			method, path string
			post         any
			status       int
			field        any
		}{
			{"POST", "/api/v1/sign_credential", object{}, 404, nil},
			{"GET", "/api/v2/ooniprobe/vpn-config/riseupvpn", nil, 404, nil},
			{"POST", "/bouncer/net-tests", object{}, 400, "net-tests"},
			{"POST", "/bouncer/net-tests", []byte(`{"net-tests":[{"name":1}]}`), 400, "net-tests.name"},
			{"POST", "/api/v1/geolookup", object{"addresses": []string{}}, 400, "addresses"},
			{"POST", "/api/v1/geolookup", object{"addresses": make([]string, 101)}, 400, "addresses"},
			{"POST", "/api/v1/register", []byte(`{"platform":1}`), 400, "platform"},
			{"POST", "/api/v1/register", []byte(`[]`), 400, "body"},
			{"POST", "/api/v1/register", []byte("{\"platform\":\"\xff\"}"), 400, "body"},
			{"POST", "/api/v1/register", bytes.Repeat([]byte(" "), 70_000), 413, "body"},
			{"POST", "/api/v1/login", []byte(`{`), 400, "body"},
			{"POST", "/report", object{"test_name": ""}, 400, "test_name"},
			{"POST", "/report", object{"test_name": "telegram", "format": "yaml"}, 400, "format"},
			{"POST", "/report", object{"test_name": "telegram", "probe_cc": 1}, 400, "probe_cc"},
			{"POST", "/report/x/close", object{}, 400, "report_id"},
		} {
			res, out := p.call(t, c.method, c.path, "", c.post)
			if res.StatusCode != c.status || at(t, out, "error").(object)["field"] != c.field {
				t.Errorf("%s %s answered %d %v, want %d of %v", c.method, c.path, res.StatusCode, out, c.status, c.field)
			}
		}
		equal(t, p.ask(t, http.MethodPut, "/api/v1/update/x", "", object{"platform": "linux", "token": "t"}), object{"status": "ok"})
		equal(t, p.ask(t, http.MethodGet, "/api/_/check_report_id?report_id=x", "", nil), object{"found": false, "v": 0.0})
	})
}

func TestProbeServicesFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "services.json")
	if err := os.WriteFile(name, []byte(`{"colectors": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{name, name + ".missing"} {
		cfg := config(t)
		cfg.ProbeServicesFile = file
		if _, err := newServer(t, cfg); err == nil || !strings.Contains(err.Error(), "PROBE_SERVICES_FILE") {
			t.Errorf("it started with %v", err)
		}
	}
}
