"""The HTTP API: requests in, jobs out, results joined into answers. It never imports torch; a test checks that."""
