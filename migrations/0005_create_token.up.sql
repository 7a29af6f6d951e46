create table token (
    id         bigint generated always as identity primary key,
    role       text not null,
    name       text not null,
    hash       bytea not null unique,
    created_at timestamptz not null
);

-- Answers to mutations by idempotency key. key and request are hashes; answer is sealed with
-- a key derived from the idempotency key, for it can hold a probe's secret.
create table idempotency (
    key        bytea primary key,
    request    bytea not null,
    answer     bytea not null,
    created_at timestamptz not null
);
create index idempotency_created_at on idempotency (created_at);
