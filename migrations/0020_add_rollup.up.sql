-- How many measurements there are of each kind and what they say, kept in the transactions that
-- write measurements. The month is of receipt, by which measurement is partitioned too: the day is
-- the probe's word, and a stranger must not have partitions made (docs/decisions/007).
create table measurement_rollup (
    month             timestamptz not null,
    country           text not null,
    day               date not null, -- of measurement.sort_at, in UTC
    asn               bigint not null,
    test_name         text not null, -- of texts, 255 characters
    domain            text not null,
    blocking_type     text not null,
    measurement_count bigint not null,
    ok_count          bigint not null, -- these four are disjoint and add up
    anomaly_count     bigint not null,
    confirmed_count   bigint not null,
    failure_count     bigint not null,
    primary key (country, day, asn, test_name, domain, blocking_type, month)
) partition by range (month);
create index measurement_rollup_domain on measurement_rollup (domain, day);

-- What is wrong with measurements, beside their verdict. The network of a sender is not kept, only
-- that it differs from the measurement's.
create sequence faulty_measurement_id;
create table faulty_measurement (
    id               bigint not null default nextval('faulty_measurement_id'),
    found_at         timestamptz not null,
    country          text not null,
    key              text not null, -- the kind, and what makes it one: a uid, or a hash of who was too many
    kind             text not null,
    uid              text not null, -- of the first, where it concerns many
    asn              bigint not null,
    observed_country text not null, -- '' unless it differs
    details          json not null,
    primary key (found_at, country, key)
) partition by range (found_at);
alter sequence faulty_measurement_id owned by faulty_measurement.id;
create index faulty_measurement_id_index on faulty_measurement (id);
create index faulty_measurement_uid on faulty_measurement (uid);

-- Measurements that are there already are counted in. Nobody writes any meanwhile.
lock table measurement in share mode;
do $$
declare
    part  text;
    since timestamptz;
begin
    for part in select inhrelid::regclass::text from pg_inherits where inhparent = 'measurement'::regclass loop
        since := to_date(right(part, 8), 'YYYYMMDD')::timestamp at time zone 'UTC';
        perform make_partition('measurement_rollup', since, (since at time zone 'UTC' + interval '1 month') at time zone 'UTC');
    end loop;
end $$;
insert into measurement_rollup
select date_trunc('month', received_at at time zone 'UTC') at time zone 'UTC', country, (sort_at at time zone 'UTC')::date, asn,
    left(test_name, 255), left(domain, 255), left(blocking_type, 255), count(*),
    count(*) filter (where not failure and not confirmed and not anomaly), count(*) filter (where anomaly and not confirmed and not failure),
    count(*) filter (where confirmed and not failure), count(*) filter (where failure)
from measurement group by 1, 2, 3, 4, 5, 6, 7;
