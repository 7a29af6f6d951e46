-- A row is the fold of the probe's events and the last heartbeat. deadline_at is a lower
-- bound of the next instant at which silence changes something: a heartbeat leaves it alone,
-- so that it stays a heap-only update, and the sweeper moves it on when it comes by.
create table probe (
    id                  text primary key,
    display_name        text not null,
    country             text not null,
    asn                 bigint not null,
    type                text not null,
    contact             text not null,
    registered_at       timestamptz not null,
    secret_hash         bytea not null unique,
    software_version    text not null,
    uptime_seconds      bigint not null,
    queue_depth         bigint not null,
    last_measurement_at timestamptz,
    last_heartbeat_at   timestamptz,
    lifecycle           text not null,
    lifecycle_since     timestamptz not null,
    liveness            text not null,
    liveness_since      timestamptz not null,
    settled             text not null,
    transitions         timestamptz[] not null,
    flapping_since      timestamptz,
    online_since        timestamptz,
    offline_since       timestamptz,
    state               text not null,
    state_since         timestamptz not null,
    retired_notice_at   timestamptz,
    last_change_at      timestamptz,
    deadline_at         timestamptz
) with (fillfactor = 70);

create index probe_deadline_at on probe (deadline_at) where deadline_at is not null;
create index probe_country_asn on probe (country, asn);
create index probe_registered_at on probe (registered_at, id);
create index probe_state_since on probe (state_since, id);

-- Times in which we could not observe; the clocks of silence stand still in them.
create table observer_outage (
    id            bigint generated always as identity primary key,
    began_at      timestamptz not null,
    ended_at      timestamptz,
    healthy_since timestamptz,
    heard_since   timestamptz,
    cause         text not null
);
create unique index observer_outage_open on observer_outage ((true)) where ended_at is null;

-- When any server process last looked at the deadlines: a gap is an outage of our own.
create table observer_watermark (
    only_row boolean primary key default true check (only_row),
    seen_at  timestamptz not null
);
