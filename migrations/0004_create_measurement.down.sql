drop table fingerprint;
drop table fingerprint_set;
drop table discarded_submission;
drop table submission;
drop table body;
drop table measurement;
