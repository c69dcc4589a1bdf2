"""`plaudit` on a host whose clock is off: wrong_clock.py SECONDS ARGUMENT…"""

from __future__ import annotations

import sys
import time

del sys.path[0]  # this folder: its modules are not top-level ones

off_s = float(sys.argv[1])
right_ns, right = time.time_ns, time.time
time.time_ns = lambda: right_ns() + int(off_s * 1e9)
time.time = lambda: right() + off_s

from service.cli import main  # noqa: E402  (the clock is set first)

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
