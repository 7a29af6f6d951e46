-- Who has spent much of their points lately, across server processes: see docs/decisions/011.
-- Unlogged: it is in no backup of the files and in no write-ahead log, and a crash empties it.
create unlogged table rate_level (
    payer   bytea primary key, -- HMAC-SHA256 of the payer's name, under rate_key
    full_at timestamptz not null -- when all points are back; the row goes then
) with (fillfactor = 50); -- a row is updated each second while it is here

-- The key of the day. With it, rows of rate_level can be tried against every network there is.
create unlogged table rate_key (
    only_row boolean primary key default true check (only_row),
    key      bytea not null,
    made_at  timestamptz not null
);
