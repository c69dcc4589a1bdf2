"""The front: requests in, jobs out, answers joined. Imports no torch, ever; a test holds it to that."""
