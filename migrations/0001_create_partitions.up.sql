-- make_partition adds the partition of parent that holds [since, until), named by its first
-- day, and says whether it was missing. It attaches a finished table instead of creating a
-- partition in place, which would lock the parent against readers and writers.
create function make_partition(parent text, since timestamptz, until timestamptz) returns boolean
language plpgsql as $$
declare
    part text := parent || '_' || to_char(since at time zone 'UTC', 'YYYYMMDD');
begin
    if to_regclass(part) is not null then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('partition:' || parent, 0));
    -- Asking again would be answered from a stale cache: trying is what tells.
    execute format('create table %I (like %I including all)', part, parent);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, part, since, until);
    return true;
exception when duplicate_table then
    return false;
end $$;
