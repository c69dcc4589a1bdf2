"""Problems in, checkpoint out: stages that meet only in files."""
