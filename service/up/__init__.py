"""`plaudit up`: the broker, the API and the workers as one process tree that leaves nothing behind.

Who runs where. One supervisor process with one thread starts everything and waits. Below it: the janitor, the broker
(unless a Redis is given), the API, the scorers and the executors, each in a process group of its own, so that Ctrl-C
at a terminal reaches the supervisor alone and the tree ends in order: the API finishes what it has accepted, then the
workers what they hold, then the broker.

Who may die. A child that dies is started again after a pause that doubles; what it left in its process group dies with
it. The broker comes back on the same socket with its append-only file. A child that cannot start because of the host
or the settings (exit codes 2 and 3), or that dies again and again before it has ever been steady, ends the whole tree.

Who cleans up. Each child asks the kernel for SIGTERM at its parent's death, so even SIGKILL of the supervisor ends the
tree; the janitor, who hears of that as the end of its pipe, kills what has not gone within a few seconds and removes
the temporary folder. On the orderly way out it does the same work last: there is one path, and it is always walked.

What is not promised. If the janitor and the supervisor are both killed at once, the children still go (the kernel sees
to that), but the temporary folder stays. If the supervisor is PID 1 of a container, the container's end is the tree's.
"""
