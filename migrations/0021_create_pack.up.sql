-- What is in the object store. An object that no row names is the remains of an attempt.
create table pack (
    id           bigint generated always as identity primary key,
    name         text not null unique, -- of both objects, without their suffixes
    hour         timestamptz not null,
    country      text not null,
    test_name    text not null, -- as in uids
    collector    int not null,
    sequence     int not null,
    posts_size   bigint not null,
    posts_sha256 bytea not null,
    lines_size   bigint not null,
    lines_sha256 bytea not null,
    body_count   int not null,
    packed_at    timestamptz not null,
    damaged_at   timestamptz, -- since when it is known to differ; null: it is whole, as far as known
    unique (hour, country, test_name, collector, sequence)
);
create index pack_hour on pack (hour);

-- Where in its pack each archived body lies.
create table packed_body (
    received_at timestamptz not null,
    country     text not null,
    uid         text not null,
    pack        bigint not null,
    post_offset bigint not null,
    post_length int not null,
    line_offset bigint not null,
    line_length int not null,
    line_number int not null,
    body_size   int not null,
    body_sha256 bytea not null,
    primary key (received_at, country, uid)
) partition by range (received_at);
