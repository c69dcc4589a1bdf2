"""A role in an interpreter of its own, started anew by execve: nothing is imported that the role does not need.

`fresh.pyc ROLE PACKAGES...`: the program lies in the working folder, what is installed in the folders named; everything
else is as in a process of the zygote's.
"""

from __future__ import annotations

import os
import sys

MAIN = "/tmp/main.py"
KIT = ("candidate", "together", "cases", "peer", "remote", "wire", "codec")


def main() -> None:
    import site

    import candidate  # type: ignore[import-not-found]  # it lies beside this file, in the jail

    site.setquit()
    entry = candidate.__dict__[sys.argv[1]]
    with open(MAIN, "rb") as file:
        text = file.read()
    for name in KIT:
        sys.modules.pop(name, None)
    sys.path[:] = ["/tmp", *sys.path[1:], *sys.argv[2:]]
    sys.argv[:] = [MAIN]
    entry(text)
    os._exit(70)  # a role never returns


if __name__ == "__main__":
    main()
