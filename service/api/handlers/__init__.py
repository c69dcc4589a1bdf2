"""What the service does: validate a request, plan its jobs, collect the replies, answer."""
