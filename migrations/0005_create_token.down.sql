drop table idempotency;
drop table token;
