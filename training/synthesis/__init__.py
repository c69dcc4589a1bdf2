"""New problems from seed programs: a writer, an oracle, and tests filtered by running wrong programs."""
