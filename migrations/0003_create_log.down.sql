drop table heartbeat;
drop table log_floor;
drop table event;
drop sequence log_seq;
