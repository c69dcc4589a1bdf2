"""A notebook in one process: runs cells one after another and reports what each printed, displayed and raised.

- This file is the program that runs in the jail; `notebook.py` sends its text there.
- Its input is `cells.json` beside it. Per cell it writes one line of JSON to the stdout that it was started with. A
  cell's own output, its children's included, goes to files meanwhile.
- Nothing that it writes is trusted: the cells run in the same process.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import tempfile
import traceback
from typing import Any

MAX_TEXT_BYTES = 1 << 20  # reported per stream of a cell


def dedented(source: str) -> str:
    """Without the indentation of its first line, as notebooks take it."""
    lines = source.split("\n")
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip())]
    return "\n".join(line.removeprefix(margin) for line in lines)


def execute(source: str, namespace: dict[str, Any], name: str) -> Any:
    """Run a cell; its value is that of its last statement, if that is an expression."""
    tree = ast.parse(dedented(source), name)
    tail = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if not isinstance(tail, ast.Expr):
        return None
    return eval(compile(ast.Expression(tail.value), name, "eval", dont_inherit=True), namespace)


def raise_timeout(number: int, frame: Any) -> None:
    raise TimeoutError("the cell's time is up")


def own_frames(error: BaseException, name: str) -> Any:
    """The traceback from the cell's first frame on; None where it has none (a syntax error)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    return trace


def run(source: str, namespace: dict[str, Any], name: str, seconds: float) -> dict[str, Any]:
    """Run one cell and report it."""
    display: list[dict[str, str]] = []
    errors: list[dict[str, Any]] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            value = execute(source, namespace, name)
            if value is not None:
                display.append({"text/plain": repr(value)[:MAX_TEXT_BYTES]})
        except BaseException as error:  # noqa: BLE001 - whatever a cell raises, SystemExit too, is reported
            lines = traceback.format_exception(type(error), error, own_frames(error, name))
            errors.append({"ename": type(error).__name__, "evalue": str(error), "traceback": lines})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        streams = []
        for stream, file in ((sys.stdout, out), (sys.stderr, err)):
            stream.flush()
            file.seek(0)
            streams.append(file.read(MAX_TEXT_BYTES).decode("utf-8", "replace"))
    return {"stdout": streams[0], "stderr": streams[1], "display": display, "error": errors}


def main() -> None:
    with open("cells.json", encoding="utf-8") as file:
        plan = json.load(file)
    signal.signal(signal.SIGALRM, raise_timeout)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    report_fd = os.dup(1)
    for number, source in enumerate(plan["cells"]):
        report = run(source, namespace, f"<cell {number}>", plan["cell_s"])
        write_all(report_fd, json.dumps(report).encode() + b"\n")


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main()
