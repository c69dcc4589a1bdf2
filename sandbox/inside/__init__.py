"""The code that runs inside a jail. It is copied there; on the host only framing and reaper are imported."""
