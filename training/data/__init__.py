"""Problems and labelled programs: data sets, folds, contamination, mutants, verdicts by running tests, and pairs."""
