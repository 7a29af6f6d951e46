drop table observer_watermark;
drop table observer_outage;
drop table probe;
