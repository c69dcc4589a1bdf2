"""How many files and connections this process may have open."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("plaudit.descriptors")

MOST = 1 << 20  # more is never used, and a hard limit may be a billion


def raise_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    log.info("limit of open descriptors raised from %d to %d", soft, wanted)
    return wanted
