"""HTTP in, numbers out: the API, the queue, and the workers behind it."""
