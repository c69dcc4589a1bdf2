"""One guest: the QEMU process, the wire into it, and the last words of its console.

- What QEMU gets: a kernel, a read-only disk, a serial port for the wire, a console that only writes, random numbers.
  No network, no host folder, no monitor. Its own system calls are filtered (`-sandbox`), and it may start no process.
- Under whose name: a uid of its own where the executor is root and that uid may open /dev/kvm; otherwise the
  executor's uid. It has no capability and can gain none.
- The wire is a socket pair: no address, so no other process of the host reaches a guest. A vsock has an address that
  every process of the host can connect to, and needs a module of the host's kernel; that is why it is not used.
- Who may block: nobody. `exchange` waits for one tick at most.
- If the executor is killed, the kernel kills QEMU (`PR_SET_PDEATHSIG`).
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.vm.messages import HEADER_BYTES, MAX_REPLY_BYTES
from sandbox.vm_image import INITRD, KERNEL, KVM, QEMU, ROOT, SLOWNESS, VmConfig

CONSOLE_BYTES = 4096  # of a guest's console, the last, for the message when it has ended
END_S = 10.0
# `pc` and not `microvm`: without KVM's clock Debian's kernel does not start on a microvm, so no test could run there.
MACHINE = "pc,usb=off,vmport=off,smbus=off,hpet=off,graphics=off"
EMULATED_SLOWNESS = 20
QEMU_FILTER = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
KERNEL_LINE = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on mitigations=auto"


class GuestLost(SandboxError):
    """A guest has ended, is silent, or says what no guest of ours says. The next judgement starts a fresh one."""


class Guest:
    """A running guest: its process, and the host's end of the wire. `close` ends it."""

    def __init__(self, process: subprocess.Popen[bytes], host_end: socket.socket) -> None:
        """`process` writes its console to a pipe on its standard output."""
        self.process = process
        self.host_end = host_end
        self.host_end.setblocking(False)
        self.console = bytearray()
        self.closed = False
        self._in, self._out = bytearray(), memoryview(b"")
        assert process.stdout is not None
        self.output = process.stdout.fileno()
        os.set_blocking(self.output, False)

    def send(self, frame: bytes) -> None:
        """Queue a frame; `exchange` writes it."""
        self._out = memoryview(bytes(self._out) + frame)

    def exchange(self, wait_s: float) -> bytes | None:
        """Write and read for one tick; the body of the next frame, if all of it has come. Raises GuestLost."""
        body = self._next_frame()
        if body is not None:
            return body
        poller = select.poll()
        poller.register(self.host_end, select.POLLIN | (select.POLLOUT if self._out else 0))
        poller.register(self.output, select.POLLIN)
        poller.poll(int(wait_s * 1000))
        self._read_console()
        try:
            if self._out:
                with suppress(BlockingIOError):
                    self._out = self._out[self.host_end.send(self._out[: 1 << 20]) :]
            with suppress(BlockingIOError):
                part = self.host_end.recv(1 << 20)
                if not part:
                    raise GuestLost(self._ended())
                self._in += part
        except OSError as error:
            raise GuestLost(self._ended()) from error
        return self._next_frame()

    def _next_frame(self) -> bytes | None:
        if len(self._in) < HEADER_BYTES:
            return None
        size = int.from_bytes(self._in[:HEADER_BYTES], "big")
        if size > MAX_REPLY_BYTES:
            raise GuestLost(f"a guest announces a message of {size} bytes; at most {MAX_REPLY_BYTES} are allowed")
        if len(self._in) < HEADER_BYTES + size:
            return None
        body = bytes(self._in[HEADER_BYTES : HEADER_BYTES + size])
        del self._in[: HEADER_BYTES + size]
        return body

    def _read_console(self) -> None:
        with suppress(BlockingIOError):
            self.console += os.read(self.output, 1 << 16)
        del self.console[:-CONSOLE_BYTES]

    def _ended(self) -> str:
        """How the guest ended, with what its console, or QEMU, said last."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self._read_console()
        lines = [line.strip() for line in self.console.decode("utf-8", "replace").splitlines() if line.strip()]
        return (
            f"a guest has ended (QEMU's exit code {self.process.returncode}): {' | '.join(lines[-3:]) or 'no message'}"
        )

    def close(self) -> None:
        """End the guest. Raises SandboxError if QEMU does not end."""
        if self.closed:
            return
        self.closed = True
        self.process.kill()
        self.host_end.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"QEMU (process {self.process.pid}) does not end within {END_S:g} s") from None
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


def start_guest(config: VmConfig, name: str, uid: int | None) -> Guest:
    """Start QEMU. Raises SandboxError if it cannot be started; what it says itself is on the guest's console."""
    host_end, guest_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    files: dict[str, int] = {}
    try:
        for file in (KERNEL, INITRD, ROOT):
            files[file] = os.open(config.image / file, os.O_RDONLY | os.O_CLOEXEC)
        process = subprocess.Popen(
            [*dropped_privileges(uid, config), *qemu_command(config, name, guest_end.fileno(), files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(guest_end.fileno(), *files.values()),
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C"},
            process_group=0,
        )
    except OSError as error:
        host_end.close()
        raise SandboxError(f"a guest cannot be started: {error}") from error
    finally:
        guest_end.close()
        for fd in files.values():
            os.close(fd)
    return Guest(process, host_end)


def qemu_command(config: VmConfig, name: str, wire: int, files: dict[str, int]) -> list[str]:
    """The command line. Files are named by descriptors, so that QEMU's uid need not reach their folder."""
    by_fd = {file: f"/proc/self/fd/{fd}" for file, fd in files.items()}
    # What QEMU emulates as `max` has more than Debian's kernel is quick with; a host's own processor is passed on.
    kernel_line = KERNEL_LINE + (f" {SLOWNESS}={EMULATED_SLOWNESS}" if config.emulation else "")
    processor, accelerator = ("qemu64,+rdrand,+smep,+smap", "tcg") if config.emulation else ("host", "kvm")
    return [
        *(shutil.which(QEMU) or QEMU, "-name", name, "-machine", f"{MACHINE},accel={accelerator}", "-cpu", processor),
        *("-smp", "1", "-m", f"{config.memory_mb}", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-sandbox", QEMU_FILTER),
        *("-kernel", by_fd[KERNEL], "-initrd", by_fd[INITRD], "-append", kernel_line),
        *("-drive", f"file={by_fd[ROOT]},format=raw,if=none,id=root,readonly=on"),
        *("-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=wire,fd={wire}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=wire,name=plaudit"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    ]


def dropped_privileges(uid: int | None, config: VmConfig) -> list[str]:
    """What stands before QEMU: no capability, none to gain, an end with the executor's, a uid of its own if possible.

    The executor's own memory limit (`executor_memory_mb`) would be inherited: QEMU gets the hard one, as jails do.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    data = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    line = ["prlimit", f"--data={data}:", "--core=0:", "setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    if uid is None:
        return [*line, "--"]
    line += ["--bounding-set=-all", "--inh-caps=-all"]
    groups = kvm_groups(config)
    if groups is not None:
        line += [
            f"--reuid={uid}",
            f"--regid={uid}",
            f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
        ]
    return [*line, "--"]


def kvm_groups(config: VmConfig, device: Path = KVM) -> list[int] | None:
    """The groups with which another uid can open /dev/kvm; None if only its owner can."""
    if config.emulation:
        return []
    about = device.stat()
    if about.st_mode & stat.S_IROTH and about.st_mode & stat.S_IWOTH:
        return []
    return [about.st_gid] if about.st_mode & stat.S_IRGRP and about.st_mode & stat.S_IWGRP else None
