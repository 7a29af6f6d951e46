drop table faulty_measurement;
drop table measurement_rollup;
