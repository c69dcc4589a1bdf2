"""Opens a sandbox: probes the host, makes the sandbox, and proves its isolation with hostile programs.

`open_sandbox` is the way to get a `Sandbox` that may run untrusted programs. It takes about a second.
"""

from __future__ import annotations

from plaudit.grading import Level
from sandbox.capabilities import HostCapabilities
from sandbox.owners import state_directory, sweep
from sandbox.sandbox import Sandbox
from sandbox.selftest import prove


def open_sandbox(accept: Level = "strong", *, slowness: float = 1.0) -> Sandbox:
    """Open a sandbox of the best isolation level of this host, and prove that it holds. The caller closes it.

    Args:
        accept: the weakest level that is acceptable.
        slowness: what the CPU limits of the self-test are multiplied by, for an emulated processor.

    Returns:
        The open sandbox, a context manager. It belongs to this process: open it after a fork, not before.

    Raises:
        IsolationUnavailable: the host cannot give `accept`, or the self-test found a hole.
        SandboxError: the sandbox could not be made.
    """
    capabilities = HostCapabilities.probe()
    capabilities.require(accept)
    state = state_directory()
    sweep(state)
    sandbox = Sandbox(capabilities, state)
    try:
        prove(sandbox, slowness)
    except BaseException:
        sandbox.close()
        raise
    return sandbox
