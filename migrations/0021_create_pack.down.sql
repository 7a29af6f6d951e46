drop table packed_body;
drop table pack;
