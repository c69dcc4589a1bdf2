"""A role in an interpreter of its own, started by execve: nothing is imported that the role does not need.

`fresh_interpreter.pyc ROLE NAME PACKAGES...`: the program lies in the working folder and gets the name NAME, what is
installed lies
in the folders named; everything else is as in a process of the zygote's.
"""

from __future__ import annotations

import os
import sys

MAIN = "/tmp/main.py"
TEXT = "/tmp/.prelude"  # prelude and program, where there is a prelude
KIT = (
    "argument_forms",
    "async_bridge",
    "bounds",
    "candidate",
    "class_mirrors",
    "codec",
    "codec_decode",
    "codec_wire",
    "exit_marks",
    "file_guard",
    "framing",
    "in_process",
    "interpreter_exit",
    "mocks",
    "operations",
    "pandas_codec",
    "program_environment",
    "proxy",
    "rpc",
    "shared_containers",
    "shared_folder",
    "shared_state",
    "test_runners",
)


def main() -> None:
    import site

    import candidate  # type: ignore[import-not-found]  # it lies beside this file, in the jail

    site.setquit()
    site.sethelper()
    site.setcopyright()
    entry = candidate.__dict__[sys.argv[1]]
    with open(TEXT if os.path.exists(TEXT) else MAIN, "rb") as file:
        text = file.read()
    for name in KIT:
        sys.modules.pop(name, None)
    candidate.NAME = sys.argv[2]
    sys.path[:] = ["/tmp", *sys.path[1:], *sys.argv[3:]]
    sys.argv[:] = [MAIN]
    candidate.interpreter_exit.remember()
    entry(text)
    os._exit(70)  # a role never returns


if __name__ == "__main__":
    main()
