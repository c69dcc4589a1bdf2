"""Errors of the sandbox itself. A wrong program is a value (a verdict), a broken judge is an error, never a verdict."""


class SandboxError(Exception):
    """The sandbox could not do its work. Never a verdict, never a reward; safe to retry."""


class IsolationUnavailable(SandboxError):
    """This host cannot give the isolation level asked for. The message names what is missing and how to get it."""


class Interrupted(SandboxError):
    """The caller asked for the work to stop (`Sandbox.interrupt`); there is no verdict."""


class Starved(SandboxError):
    """A run reached its wall limit because the host gave it no CPU: no verdict yet, the run is repeated once."""


class InvalidSuite(SandboxError):
    """The test suite cannot be used (a syntax error in a test, no entry point); the message says which part."""


class ModuleUnavailable(InvalidSuite):
    """The program imports a module that this host lacks, and the caller asked for no verdict on such programs."""

    def __init__(self, modules: list[str]) -> None:
        super().__init__(f"the program imports {', '.join(modules)}, which this deployment does not have")
        self.modules = modules


class InvalidOptions(InvalidSuite):
    """An option that this program or kind of suite cannot have; the message names it as `options.NAME`."""
