"""What outlives a request: durable requests in Redis, and the log of scored samples on disk."""
