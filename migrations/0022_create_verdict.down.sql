drop table verdict;
