drop table rate_key;
drop table rate_level;
