"""A role in an interpreter of its own, started by execve: nothing is imported that the role does not need.

`fresh_interpreter.pyc ROLE NAME PACKAGES...`: the program lies in the working folder and gets the name NAME; installed
packages lie in the folders named; everything else is as in a process that the zygote forks.
"""

from __future__ import annotations

import os
import sys

from sandbox.inside import candidate, interpreter_exit

MAIN = "/tmp/main.py"
TEXT = "/tmp/.prelude"  # prelude and program, where there is a prelude


def main() -> None:
    import site

    site.setquit()
    site.sethelper()
    site.setcopyright()
    entry = candidate.__dict__[sys.argv[1]]
    with open(TEXT if os.path.exists(TEXT) else MAIN, "rb") as file:
        text = file.read()
    for name in list(sys.modules):
        if name.partition(".")[0] == "sandbox":
            del sys.modules[name]
    candidate.NAME = sys.argv[2]
    sys.path[:] = ["/tmp", *sys.path[1:], *sys.argv[3:]]
    sys.argv[:] = [MAIN]
    interpreter_exit.remember()
    entry(text)
    os._exit(70)  # a role never returns


if __name__ == "__main__":
    main()
