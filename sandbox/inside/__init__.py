"""What runs inside a jail. Copied there file by file; imported by nothing out here but tests."""
