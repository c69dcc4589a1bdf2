"""`plaudit up`: the broker, the API and the workers as one process tree that leaves nothing behind.

Who runs where:
- One supervisor process with one thread starts everything and waits.
- Below it run the reaper, the broker (unless a Redis is given), the API, the scorers and the executors, each in a
  process group of its own, so that Ctrl-C at a terminal reaches the supervisor alone.
- The tree stops in order: the API finishes what it has accepted, then the workers what they hold, then the broker.

Who may crash:
- A child that exits is restarted after a pause that doubles; what it left in its process group is killed.
- The broker comes back on the same socket with its append-only file.
- A child that cannot start because of the host or the settings (exit codes 2 and 3), or that exits again and again
  before it was ever steady, stops the whole tree.

Who cleans up:
- Each child asks the kernel for SIGTERM at its parent's end, so even SIGKILL of the supervisor ends the tree.
- The reaper, whose input ends with the supervisor, kills what has not ended within a few seconds and removes the
  temporary folder. It does the same at an orderly stop: there is one path, and it is always taken.

Not promised: if the reaper and the supervisor are both killed at once, the children still end (by the kernel's signal),
but the temporary folder stays. If the supervisor is PID 1 of a container, the container's end is the tree's.
"""
