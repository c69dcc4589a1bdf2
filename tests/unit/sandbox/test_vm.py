"""Level `vm` without a virtual machine: the wire, the agent as a process of this host, and what the host refuses."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage
from sandbox import vm_image
from sandbox.capabilities import HostCapabilities
from sandbox.errors import (
    Interrupted,
    InvalidOptions,
    InvalidSuite,
    IsolationUnavailable,
    ModuleUnavailable,
    SandboxError,
)
from sandbox.harness import code_digest
from sandbox.owners import state_directory
from sandbox.types import (
    AssertSuite,
    Case,
    FunctionSuite,
    Limits,
    Options,
    Program,
    Report,
    RunSuite,
    StdioCase,
    StdioSuite,
    Stop,
    TestReport,
)
from sandbox.vm import build, guest, messages
from sandbox.vm.machine import Guest, GuestLost, dropped_privileges, kvm_groups, qemu_command
from sandbox.vm.messages import Judged, Judgement, NotReady, Ready, Refused, Reply, Working
from sandbox.vm.vm_sandbox import VmSandbox, open_vm_sandbox
from sandbox.vm_image import FORMAT, INITRD, KERNEL, MANIFEST, ROOT, VmConfig, vm_lacks
from service import check, cli
from service.settings import Settings, load

CONFIG = VmConfig(Path("/nowhere"), memory_mb=2048, answer_s=60.0)
ADD = AssertSuite(("assert add(2, 3) == 5", "assert add(-1, 1) == 0"))
RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
AGENT = "import sys; from sandbox.vm.guest import serve; sys.exit(serve(int(sys.argv[1])))"

needs_strong = pytest.mark.skipif(
    bool(HostCapabilities.probe().lacks["strong"]), reason="needs isolation level strong for the agent's sandbox"
)


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_sent() -> None:
    suite = FunctionSuite("f", (Case((10**400, [1.5, None]), {"k": "ü\ud800"}, {"a": [True]}, also=(3,)),))
    sent = Judgement(7, Program("python", "x = '\ud800'"), suite, Limits(cpu_s=2.5), Stop(1), Options(audit=True))
    frame = messages.encode_request(sent)
    body = frame[messages.HEADER_BYTES :]
    assert int.from_bytes(frame[: messages.HEADER_BYTES], "big") == len(body)
    assert messages.decode_request(body) == sent


def test_files_of_a_run_arrive_as_bytes() -> None:
    suite = RunSuite("in", files=(("a.bin", bytes(range(256))),), fetch=("out",))
    sent = Judgement(1, Program("python", ""), suite, Limits(), Stop(), Options())
    assert messages.decode_request(messages.encode_request(sent)[4:]) == sent


def test_a_reply_is_decoded_into_its_types_only() -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode_reply(msgspec.msgpack.encode({"type": "judged", "number": 1, "report": {"verdict": "great"}}))


# --- the agent, as a process of this host -----------------------------------------------------------------------------


def agent(config: VmConfig, name: str, uid: int | None) -> Guest:
    host_end, guest_end = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(guest_end.fileno())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[guest_end.fileno()],
    )
    guest_end.close()
    return Guest(process, host_end)


@pytest.fixture(scope="module")
def vm() -> Iterator[VmSandbox]:
    with VmSandbox(CONFIG, state_directory(), agent) as sandbox:
        yield sandbox


@needs_strong
def test_a_guest_judges_and_the_report_says_vm(vm: VmSandbox) -> None:
    right = vm.judge(Program("python", RIGHT), ADD, Limits(), Stop())
    wrong = vm.judge(Program("python", WRONG), ADD, Limits(), Stop())
    assert (right.verdict, right.passed, right.isolation) == (Verdict.PASSED, 2, "vm")
    assert (wrong.verdict, wrong.passed, wrong.isolation) == (Verdict.WRONG_ANSWER, 0, "vm")
    assert vm.level == "vm"


@needs_strong
def test_languages_and_packages_are_the_guests(vm: VmSandbox) -> None:
    assert "python" in [language.name for language in vm.languages()]
    assert vm.packages("no such language") == ()
    assert vm.toolchain_digest.startswith("sha256:")


@needs_strong
def test_what_judge_raises_in_a_guest_is_raised_by_class(vm: VmSandbox) -> None:
    def judge(source: str, suite: Any, options: Options = Options(), language: str = "python") -> Report:  # noqa: B008
        return vm.judge(Program(language, source), suite, Limits(), Stop(), options)

    with pytest.raises(InvalidSuite, match="tests"):
        judge(RIGHT, AssertSuite(("assert (",)))
    with pytest.raises(UnsupportedLanguage):
        judge(RIGHT, ADD, language="klingon")
    with pytest.raises(InvalidOptions, match=r"options\.hash_seed"):
        judge(RIGHT, ADD, Options(hash_seed=1))
    with pytest.raises(ModuleUnavailable) as lacking:
        judge("import nothing_of_that_name\n" + RIGHT, ADD, Options(missing_modules="invalid"))
    assert lacking.value.modules == ["nothing_of_that_name"]


@needs_strong
def test_an_interrupted_judgement_ends_and_its_guest_goes_on(vm: VmSandbox) -> None:
    started = vm.num_started
    threading.Timer(1.0, vm.interrupt.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        vm.judge(Program("python", "import time\ntime.sleep(50)"), StdioSuite((StdioCase("", ""),)), Limits(), Stop())
    vm.interrupt.clear()
    assert time.monotonic() - began < 40
    assert vm.judge(Program("python", RIGHT), ADD, Limits(), Stop()).passed == 2
    assert vm.num_started == started


@needs_strong
def test_a_killed_guest_is_a_typed_error_and_then_a_fresh_one(vm: VmSandbox) -> None:
    started = vm.num_started
    assert vm.guest is not None
    vm.guest.process.kill()
    with pytest.raises(GuestLost, match="a guest has ended"):
        vm.judge(Program("python", RIGHT), ADD, Limits(), Stop())
    assert vm.judge(Program("python", RIGHT), ADD, Limits(), Stop()).passed == 2
    assert vm.num_started == started + 1


# --- a guest whose kernel was broken ----------------------------------------------------------------------------------

READY = Ready(FORMAT, code_digest().hex(), "strong", "sha256:0", ())
HONEST = Report(Verdict.WRONG_ANSWER, 0, 1, (TestReport(Verdict.WRONG_ANSWER),), "split", "strong")


def scripted(*frames: bytes | Reply) -> Callable[[VmConfig, str, int | None], Guest]:
    """A guest that says these frames, the first at once and the others when it was asked something."""

    def start(config: VmConfig, name: str, uid: int | None) -> Guest:
        host_end, guest_end = socket.socketpair()
        process = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE)
        first, *others = (frame if isinstance(frame, bytes) else messages.encode_reply(frame) for frame in frames)

        def speak() -> None:
            with guest_end:
                guest_end.sendall(first)
                if others:
                    guest_end.recv(1 << 20)
                    guest_end.sendall(b"".join(others))
                guest_end.recv(1 << 20)

        threading.Thread(target=speak, daemon=True).start()
        return Guest(process, host_end)

    return start


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (Judged(2, HONEST), "of another judgement"),
        (READY, "of another judgement"),
        (messages.framed(b"\xc1nonsense"), "no message"),
        ((messages.MAX_REPLY_BYTES + 1).to_bytes(4, "big"), "at most"),
        (Judged(1, replace(HONEST, verdict=Verdict.PASSED)), "contradicts itself"),
        (Judged(1, replace(HONEST, passed=2)), "contradicts itself"),
    ],
    ids=["a later number", "ready twice", "nonsense", "a flood", "passed without a pass", "more passes than tests"],
)
def test_a_broken_guest_is_lost_and_pays_nothing(says: bytes | Reply, message: str) -> None:
    with VmSandbox(CONFIG, state_directory(), scripted(READY, says)) as vm:
        with pytest.raises(GuestLost, match=message):
            vm.judge(Program("python", WRONG), ADD, Limits(), Stop())
        assert vm.guest is None


def test_a_guest_is_replaced_after_its_jobs() -> None:
    guests = iter([scripted(READY, Judged(1, HONEST)), scripted(READY, Judged(2, HONEST))])
    ended: list[Guest] = []

    def start(config: VmConfig, name: str, uid: int | None) -> Guest:
        ended.append(next(guests)(config, name, uid))
        return ended[-1]

    with VmSandbox(replace(CONFIG, max_jobs=1), state_directory(), start) as vm:
        for _ in range(2):
            assert vm.judge(Program("python", WRONG), ADD, Limits(), Stop()) == replace(HONEST, isolation="vm")
        assert vm.num_started == 2
        assert ended[0].process.poll() is not None  # the first one has ended


def test_a_guest_that_only_says_it_works_is_lost_at_the_end() -> None:
    with (
        VmSandbox(replace(CONFIG, answer_s=0.3), state_directory(), scripted(READY, Working(1))) as vm,
        pytest.raises(GuestLost, match=r"within 0\.3 s"),
    ):
        vm.judge(Program("python", WRONG), ADD, Limits(), Stop())


def test_an_unknown_refusal_is_a_sandbox_error_and_never_a_verdict() -> None:
    with VmSandbox(CONFIG, state_directory(), scripted(READY, Refused(1, "Reward", "10"))) as vm:
        with pytest.raises(Exception, match="10") as raised:
            vm.judge(Program("python", WRONG), ADD, Limits(), Stop())
        assert type(raised.value).__name__ == "SandboxError"


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (NotReady("no cgroups"), "no cgroups"),
        (msgspec.structs.replace(READY, level="userns"), "not of level strong"),
        (msgspec.structs.replace(READY, code="00"), "another version"),
    ],
)
def test_a_guest_that_is_not_ours_takes_no_work(says: Reply, message: str) -> None:
    with pytest.raises(IsolationUnavailable, match=message):
        VmSandbox(CONFIG, state_directory(), scripted(says))


def test_memory_that_no_guest_has_is_refused_by_name() -> None:
    with (
        VmSandbox(CONFIG, state_directory(), scripted(READY)) as vm,
        pytest.raises(InvalidSuite, match=r"limits\.memory_mb is 4096; at most \d+ fit"),
    ):
        vm.judge(Program("python", RIGHT), ADD, Limits(memory_mb=4096), Stop())


# --- QEMU's command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emulation", [False, True])
def test_a_guest_has_no_network_no_monitor_and_a_disk_it_cannot_write(emulation: bool) -> None:
    line = qemu_command(replace(CONFIG, emulation=emulation), "name", 5, {KERNEL: 6, INITRD: 7, ROOT: 8})
    text = " ".join(line)
    assert {"-nodefaults", "-no-user-config"} <= set(line)
    assert "readonly=on" in text
    assert "elevateprivileges=deny" in text
    assert "spawn=deny" in text
    assert not {"-netdev", "-nic", "-monitor", "-qmp", "-virtfs", "-fsdev"} & set(line)
    assert ("accel=tcg" in text) is emulation
    assert ("accel=kvm" in text) is not emulation


def test_qemu_gets_no_capability_and_ends_with_its_executor() -> None:
    line = dropped_privileges(20_000, replace(CONFIG, emulation=True))
    at = line.index("--pdeathsig")
    assert (line[at - 1], line[at + 1]) == ("setpriv", "KILL")
    assert {"--no-new-privs", "--bounding-set=-all", "--reuid=20000", "--regid=20000", "--clear-groups"} <= set(line)


def test_an_executors_memory_limit_is_not_qemus() -> None:
    script = (
        "import os, resource, sys; from pathlib import Path; from sandbox.vm.machine import dropped_privileges\n"
        "from sandbox.vm_image import VmConfig\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))\n"
        "line = [*dropped_privileges(None, VmConfig(Path('/x'), emulation=True)), 'sh', '-c', 'ulimit -d']\n"
        "os.execvp(line[0], line)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() != str(1 << 20)  # ulimit counts in KiB


@pytest.mark.parametrize(("mode", "groups"), [(0o666, []), (0o660, [77]), (0o600, None)])
def test_a_uid_of_its_own_where_it_can_open_kvm(mode: int, groups: list[int] | None) -> None:
    device: Any = SimpleNamespace(stat=lambda: SimpleNamespace(st_mode=stat.S_IFCHR | mode, st_gid=77))
    assert kvm_groups(CONFIG, device) == groups


# --- what is refused, by name -----------------------------------------------------------------------------------------


def image(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    for name in (KERNEL, INITRD, ROOT):
        (folder / name).write_bytes(b"")
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "code": code_digest().hex(), **changes}))
    return folder


def test_without_kvm_level_vm_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_image, "KVM", tmp_path / "no-kvm")
    monkeypatch.setattr(vm_image.shutil, "which", lambda name: f"/usr/bin/{name}")
    config = VmConfig(image(tmp_path / "image"))
    assert [lack for lack in vm_lacks(config) if "no-kvm (No such file or directory" in lack]
    assert vm_lacks(replace(config, emulation=True)) == []
    with pytest.raises(IsolationUnavailable, match=r"isolation level 'vm' is not available here, missing: .*no-kvm"):
        open_vm_sandbox(config)


def test_what_an_image_lacks_is_named(tmp_path: Path) -> None:
    def lacks(folder: Path) -> str:
        return "; ".join(vm_image.image_lacks(folder))

    assert "plaudit vm build" in lacks(tmp_path / "nothing")
    assert "of this version" in lacks(image(tmp_path / "old", code="00"))
    (broken := image(tmp_path / "broken")).joinpath(ROOT).unlink()
    assert ROOT in lacks(broken)
    assert lacks(image(tmp_path / "good")) == ""


def test_level_vm_needs_an_image_to_be_chosen() -> None:
    host = HostCapabilities.probe()
    assert host.level != "vm"
    with pytest.raises(IsolationUnavailable, match="plaudit vm build FOLDER"):
        host.require("vm")


def test_check_names_what_an_image_needs_whatever_level_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_image, "KVM", tmp_path / "no-kvm")
    missing: list[str] = []
    shown = check._isolation(Settings(vm_image=image(tmp_path / "image"), isolation_accept="none"), missing)
    assert shown["lacking"]["vm"]
    assert len(missing) == 1
    assert "no-kvm" in missing[0]
    assert "Docker: --user root" not in missing[0]


def test_settings_say_how_guests_are_started(tmp_path: Path) -> None:
    assert Settings().vm_config() is None
    environ = {"PLAUDIT_VM_IMAGE": str(tmp_path), "PLAUDIT_VM_MEMORY_MB": "4096", "PLAUDIT_VM_EMULATION": "true"}
    config = load(environ=environ).vm_config()
    assert config is not None
    assert (config.image, config.memory_mb, config.emulation) == (tmp_path, 4096, True)


# --- plaudit vm build -------------------------------------------------------------------------------------------------


def test_a_host_without_the_tools_is_told_which_packages_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert cli.main(["vm", "build", str(tmp_path / "image")]) == 3
    assert "mmdebstrap squashfs-tools" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_an_unknown_language_is_a_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vm", "build", str(tmp_path / "image"), "--languages", "klingon"]) == 2
    assert "--languages" in capsys.readouterr().err


def test_a_folder_that_is_no_image_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "require_tools", lambda: None)
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(SandboxError, match="is no image"):
        build.build_image(tmp_path)
    assert (tmp_path / "letters").read_text() == "dear"


def test_the_packages_of_languages_are_those_of_the_table() -> None:
    assert build.toolchain_packages(["python", "cpp", "c"])[:2] == ["g++", "gcc"]
    assert build.toolchain_packages(["python"]) == []


def test_a_guest_has_nothing_of_the_service() -> None:
    assert not {"redis", "fastapi", "httpx", "torch", "service"} & set(build.OWN_PACKAGES)


def test_the_kernels_command_line_says_how_slow_a_guest_is(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text("console=ttyS0 quiet plaudit.slowness=20\n")
    assert guest.slowness(tmp_path / "cmdline") == 20
    (tmp_path / "cmdline").write_text("console=ttyS0 quiet\n")
    assert guest.slowness(tmp_path / "cmdline") == 1
