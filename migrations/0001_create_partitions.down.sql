drop function make_partition(text, timestamptz, timestamptz);
