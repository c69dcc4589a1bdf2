"""Between a handler and the queue: one request's jobs, the replies to them, and what is known of the workers."""
