-- What measurements were said to show before they were rescored. It goes with them.
create table verdict (
    received_at         timestamptz not null,
    country             text not null,
    uid                 text not null,
    replaced_at         timestamptz not null,
    anomaly             boolean not null,
    confirmed           boolean not null,
    failure             boolean not null,
    blocking_type       text not null,
    scores              json not null,
    scoring_problem     text not null,
    scorer_version      text not null,
    fingerprint_version int, -- null when none were loaded
    outcome             text not null,
    evidence            json not null
) partition by range (received_at);
create index verdict_uid on verdict (received_at, country, uid, replaced_at);

-- Objects of other archives that were imported whole.
create table imported_object (
    source      text not null, -- the other archive, without secrets
    name        text not null,
    size        bigint not null,
    imported_at timestamptz not null,
    primary key (source, name)
);
