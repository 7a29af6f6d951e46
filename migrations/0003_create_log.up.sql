-- One sequence numbers events and heartbeats. Numbers are taken under an advisory lock that
-- is held until the commit, so their order is the order of commits.
create sequence log_seq;

create table event (
    seq          bigint not null,
    recorded_at  timestamptz not null,
    country      text not null, -- '' when it concerns none
    occurred_at  timestamptz not null,
    kind         text not null,
    subject      text not null, -- '' when it concerns the whole network
    asn          bigint not null, -- 0 when it concerns none
    payload      json not null,
    rule_id      text not null,
    rule_version int not null,
    caused_by    bigint[] not null,
    primary key (seq, recorded_at, country)
) partition by range (recorded_at);

-- Scored measurements are most of the log and are found through their own table.
create index event_subject on event (subject, seq) where kind <> 'MEASUREMENT_SCORED';
create index event_kind on event (kind, seq) where kind <> 'MEASUREMENT_SCORED';
create index event_display on event (subject, occurred_at, seq) where kind in ('PROBE_REGISTERED', 'PROBE_DISPLAY_CHANGED');

-- The largest number that retention has dropped: a reader behind it cannot continue.
create table log_floor (
    only_row boolean primary key default true check (only_row),
    seq      bigint not null
);
insert into log_floor (seq) values (0);

create table heartbeat (
    received_at         timestamptz not null,
    country             text not null,
    probe_id            text not null,
    seq                 bigint not null,
    asn                 bigint not null,
    software_version    text not null,
    uptime_seconds      bigint not null,
    queue_depth         bigint not null,
    last_measurement_at timestamptz,
    primary key (received_at, country, probe_id, seq)
) partition by range (received_at);
create index heartbeat_seq on heartbeat (seq);
create index heartbeat_probe on heartbeat (probe_id, received_at);
