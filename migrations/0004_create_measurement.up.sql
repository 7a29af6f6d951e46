create table measurement (
    received_at         timestamptz not null,
    country             text not null,
    uid                 text not null,
    sort_at             timestamptz not null, -- started_at, else received_at
    started_at          timestamptz,
    test_started_at     timestamptz,
    test_runtime        double precision,
    asn                 bigint not null,
    resolver_asn        bigint, -- null when the body does not say
    report_id           text not null,
    input               text not null,
    domain              text not null,
    test_name           text not null,
    test_version        text not null,
    platform            text not null,
    architecture        text not null,
    software_name       text not null,
    software_version    text not null,
    engine_name         text not null,
    engine_version      text not null,
    test_helper_address text not null,
    test_helper_type    text not null,
    ooni_run_link_id    bigint,
    verified            text not null,
    anomaly             boolean not null,
    confirmed           boolean not null,
    failure             boolean not null,
    blocking_type       text not null,
    scores              json not null,
    scoring_problem     text not null,
    scorer_version      text not null,
    fingerprint_version int, -- null when none were loaded
    provenance          text not null,
    probe_id            text, -- null when no registered probe sent it
    body_size           int not null,
    body_sha256         bytea not null,
    primary key (received_at, country, uid)
) partition by range (received_at);
create index measurement_sort on measurement (sort_at, uid);
create index measurement_country on measurement (country, sort_at);
create index measurement_domain on measurement (domain, sort_at);
create index measurement_report on measurement (report_id);
create index measurement_probe on measurement (probe_id, sort_at) where probe_id is not null;

-- Bodies as submitted, zstd-compressed, until they are archived.
create table body (
    received_at timestamptz not null,
    country     text not null,
    uid         text not null,
    data        bytea not null,
    primary key (received_at, country, uid)
) partition by range (received_at);
alter table body alter column data set storage external;

-- One row per body and sender: what makes the same body sent twice one measurement. The
-- start of the test is a function of the body, so it keeps the key unique and its index local.
create table submission (
    started_at  timestamptz not null,
    country     text not null,
    body_sha256 bytea not null,
    sender      text not null, -- a probe's id, or '' for everybody else
    uid         text not null,
    primary key (started_at, country, body_sha256, sender)
);

-- Bodies that cannot take part, with the rule that says so.
create table discarded_submission (
    received_at timestamptz not null,
    country     text not null,
    uid         text not null,
    reason      text not null,
    sender      text not null,
    primary key (received_at, country, uid)
) partition by range (received_at);

create table fingerprint_set (
    version     int generated always as identity primary key,
    imported_at timestamptz not null,
    source      text not null,
    dns_count   int not null,
    http_count  int not null
);

create table fingerprint (
    version            int not null references fingerprint_set on delete cascade,
    position           int not null,
    name               text not null,
    scope              text not null,
    other_names        text not null,
    location_found     text not null,
    pattern_type       text not null,
    pattern            text not null,
    confidence_no_fp   int not null,
    expected_countries text[] not null,
    primary key (version, position)
);
