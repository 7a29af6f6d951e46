drop table imported_object;
drop table verdict;
