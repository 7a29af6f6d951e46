package server

import (
	"log/slog"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/notify"
)

// Config is every setting of the server. Each is a flag and an environment variable, and is
// listed in README.
type Config struct {
	DatabaseURL     string `name:"database-url" env:"DATABASE_URL" help:"PostgreSQL 14 or newer. Absent: a private one is started under the data directory."`
	DataDir         string `name:"data-dir" env:"DATA_DIR" help:"Where the private PostgreSQL keeps its files. Absent: ./var, or /var/lib/vantage for root where PostgreSQL's user cannot enter ./var."`
	Listen          string `name:"listen" env:"LISTEN" default:"127.0.0.1:8080" help:"Address of the API and the pages."`
	HeartbeatListen string `name:"heartbeat-listen" env:"HEARTBEAT_LISTEN" default:"127.0.0.1:8081" help:"Address of the second listener, for heartbeats alone. Give it another IP, so that who blocks one may leave the other."`
	PublicURL       string `name:"public-url" env:"PUBLIC_URL" help:"Where clients find the API, such as https://api.example.org, for the links that are given to them. Absent: where each request was sent to, without TLS."`

	AllowedOrigins []string `name:"allowed-origins" env:"ALLOWED_ORIGINS" help:"Origins of other sites' pages that may open websockets, such as https://example.org. The server's own pages always may."`
	TrustedProxies []string `name:"trusted-proxies" env:"TRUSTED_PROXIES" help:"Networks of proxies, such as 10.0.0.0/8, whose X-Forwarded-For is believed."`

	AutoActivate            bool                  `name:"probe-auto-activate" env:"PROBE_AUTO_ACTIVATE" help:"Make registered probes ACTIVE at once, without a person's decision. Strangers can then put a probe of their own beside a lone one and so learn its network: set PUBLIC_NETWORKS=never as well."`
	OpenCollector           bool                  `name:"open-collector" env:"OPEN_COLLECTOR" default:"true" negatable:"" help:"Take measurements from anybody, as third-party evidence."`
	PublicNetworks          access.PublicNetworks `name:"public-networks" env:"PUBLIC_NETWORKS" default:"grouped" enum:"always,grouped,never" help:"When the public sees a probe's network: always, grouped (only if the probe is not alone in its country and network), or never."`
	RegistrationsPerHour    int                   `name:"registrations-per-hour" env:"REGISTRATIONS_PER_HOUR" default:"120" help:"How many probes one source (IPv4 /24, IPv6 /56) may register in an hour."`
	MaxMeasurementBytes     int                   `name:"max-measurement-bytes" env:"MAX_MEASUREMENT_BYTES" default:"4194304" help:"The largest measurement body."`
	MaxDocumentBytes        int                   `name:"max-document-bytes" env:"MAX_DOCUMENT_BYTES" default:"262144" help:"The largest GraphQL document."`
	MaxConnections          int                   `name:"max-connections" env:"MAX_CONNECTIONS" default:"20000" help:"How many websockets and event streams this process holds at a time. An idle one takes some 10 kB."`
	MaxConnectionsPerClient int                   `name:"max-connections-per-client" env:"MAX_CONNECTIONS_PER_CLIENT" default:"12000" help:"How many of them one token may have, or one source (IPv4 /24, IPv6 /56) without a token."`
	RatePublic              Rate                  `name:"rate-public" env:"RATE_PUBLIC" default:"2000/200000" help:"What one source (IPv4 /24, IPv6 /56) may spend without a token: points per second / points at once."`
	RateProbe               Rate                  `name:"rate-probe" env:"RATE_PROBE" default:"1000/100000" help:"What one probe may spend."`
	RateResearcher          Rate                  `name:"rate-researcher" env:"RATE_RESEARCHER" default:"5000/500000" help:"What one token of a RESEARCHER may spend."`
	RateOperator            Rate                  `name:"rate-operator" env:"RATE_OPERATOR" default:"50000/5000000" help:"What one token of an OPERATOR may spend."`
	RateAdmin               Rate                  `name:"rate-admin" env:"RATE_ADMIN" default:"50000/5000000" help:"What one token of an ADMIN may spend."`
	HeartbeatMinInterval    time.Duration         `name:"heartbeat-min-interval" env:"HEARTBEAT_MIN_INTERVAL" default:"10s" help:"A probe that sends heartbeats closer together than this is told to wait. 0: it is not."`
	GeoIPCountryDatabase    string                `name:"geoip-country-database" env:"GEOIP_COUNTRY_DATABASE" help:"A file of MaxMind's format with the countries of addresses, to compare with what probes say. It is read again when it changes. Absent: the files of Debian's tor-geoipdb, where they are."`
	GeoIPASNDatabase        string                `name:"geoip-asn-database" env:"GEOIP_ASN_DATABASE" help:"The same with the networks of addresses. Absent: networks are as probes declare them."`
	Canaries                []string              `name:"canaries" env:"CANARIES" help:"Ids of probes of the type CANARY that run outside the probe countries, see vantage canary. When none of them is heard, it is we who cannot hear."`
	OONIURL                 string                `name:"ooni-api-url" env:"OONI_API_URL" help:"A service that speaks OONI's API, such as https://api.ooni.io, to be asked what others measure on the networks of silent probes. Absent: nobody is asked."`
	ProbeServicesFile       string                `name:"probe-services-file" env:"PROBE_SERVICES_FILE" help:"A JSON file with what probes of the established network are told: test_helpers, collectors, tor_targets, features, psiphon_config, collector_id. It is read at the start. Absent: no helpers, and no test that waits for a permission."`
	KeepHeartbeats          time.Duration         `name:"keep-heartbeats" env:"KEEP_HEARTBEATS" default:"0" help:"Drop heartbeats older than this, by whole days. 0: keep all."`
	KeepMeasurements        time.Duration         `name:"keep-measurements" env:"KEEP_MEASUREMENTS" default:"0" help:"Drop measurements older than this, by whole months. 0: keep all."`
	KeepEvents              time.Duration         `name:"keep-events" env:"KEEP_EVENTS" default:"0" help:"Drop events, and explanations of silences, older than this, by whole months; asOf is refused once some are dropped. 0: keep all."`
	ArchiveURL              string                `name:"archive-url" env:"ARCHIVE_URL" help:"Where bodies are archived: file:///DIR, or s3://BUCKET?endpoint=https://s3.example.org&region=eu-1 with its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Absent: the directory archive under the data directory."`
	CollectorID             int                   `name:"collector-id" env:"COLLECTOR_ID" default:"1" help:"Number of this server's database in the names of archived files. No other may have the same in one store."`
	MaxDatabaseConns        int32                 `name:"max-database-conns" env:"MAX_DATABASE_CONNS" default:"20" help:"Connections to the database."`

	PagerDutyRoutingKey string `name:"pagerduty-routing-key" env:"PAGERDUTY_ROUTING_KEY" help:"Key of a PagerDuty integration of the kind Events API v2. Absent: nobody is paged."`
	PagerDutyURL        string `name:"pagerduty-url" env:"PAGERDUTY_URL" default:"https://events.pagerduty.com/v2/enqueue" help:"Where pages are sent to."`
	SlackWebhookURL     string `name:"slack-webhook-url" env:"SLACK_WEBHOOK_URL" help:"Incoming webhook of a Slack channel, for digests. It is a secret."`
	SMTPURL             string `name:"smtp-url" env:"SMTP_URL" help:"Mail server for letters to operators of probes, such as smtp://USER:PASSWORD@mail.example.org:587, or smtps:// for TLS from the first byte. Absent: nobody is written to."`
	SMTPTLS             string `name:"smtp-tls" env:"SMTP_TLS" default:"mandatory" enum:"mandatory,opportunistic,none" help:"Whether a smtp:// server must offer TLS."`
	MailFrom            string `name:"mail-from" env:"MAIL_FROM" help:"Sender of letters, who also gets the answers, such as Vantage <probes@example.org>."`
	UpdateURL           string `name:"update-url" env:"UPDATE_URL" help:"Where operators of probes get the newest version; named in letters."`
	NotifyAllowPrivate  bool   `name:"notify-allow-private" env:"NOTIFY_ALLOW_PRIVATE" help:"Let pager, chat, mail server and webhooks be in private networks, and be spoken to without TLS."`

	ClockRate     float64       `name:"clock-rate" env:"CLOCK_RATE" default:"1" help:"For simulations alone: how many times faster than the world the server's clock runs from its start. Use a database that may be thrown away."`
	LogFormat     string        `name:"log-format" env:"LOG_FORMAT" default:"auto" enum:"auto,json,text" help:"auto is text on a terminal and JSON elsewhere."`
	LogLevel      slog.Level    `name:"log-level" env:"LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
	ShutdownGrace time.Duration `name:"shutdown-grace" env:"SHUTDOWN_GRACE" default:"10s" help:"How long requests under way may take when the server stops."`
}

// destinations are where the server sends to.
func (c Config) destinations() notify.Settings {
	return notify.Settings{
		PagerDutyKey: c.PagerDutyRoutingKey, PagerDutyURL: c.PagerDutyURL, SlackURL: c.SlackWebhookURL,
		SMTPURL: c.SMTPURL, SMTPTLS: c.SMTPTLS, MailFrom: c.MailFrom, UpdateURL: c.UpdateURL, AllowPrivate: c.NotifyAllowPrivate,
	}
}
