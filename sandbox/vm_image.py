"""The image of a guest, how guests are started, and what this host lacks for them."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.harness import code_digest

KVM = Path("/dev/kvm")
QEMU = "qemu-system-x86_64"
KERNEL, INITRD, ROOT, MANIFEST = "vmlinuz", "initrd", "root.squashfs", "manifest.json"
FORMAT = 1  # of the image's folder, and of the messages between host and guest
SLOWNESS = "plaudit.slowness"  # word of the kernel's command line
GUEST_OWN_MB = 384  # of a guest's memory: its kernel, its agent, and the jails that are kept warm
KVM_BOOT_S, EMULATED_BOOT_S = 60.0, 900.0  # until a guest is ready, on a busy host


@dataclass(frozen=True, slots=True)
class VmConfig:
    """How the guests of an executor are started.

    Attributes:
        image: folder that `plaudit vm build` made.
        memory_mb: memory of a guest.
        emulation: run without KVM, by QEMU's software emulation. For tests.
        max_jobs: judgements after which a guest is replaced.
        answer_s: how long one judgement may take.
    """

    image: Path
    memory_mb: int = 2048
    emulation: bool = False
    max_jobs: int = 1000
    answer_s: float = 600.0

    @property
    def boot_s(self) -> float:
        return EMULATED_BOOT_S if self.emulation else KVM_BOOT_S

    @property
    def program_mb(self) -> int:
        """The memory that programs can have."""
        return self.memory_mb - GUEST_OWN_MB


def read_manifest(image: Path) -> dict[str, Any]:
    """What `plaudit vm build` wrote about an image. Raises OSError or ValueError if it is none."""
    manifest = json.loads((image / MANIFEST).read_text("utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError(f"{image / MANIFEST} holds no object")
    return manifest


def vm_lacks(config: VmConfig | None) -> list[str]:
    """What keeps this host from running guests; empty if nothing. Starts none."""
    lacks = []
    if platform.machine() != "x86_64":
        lacks.append(f"an x86-64 host: guests are x86-64, this host is {platform.machine()}")
    if shutil.which(QEMU) is None:
        lacks.append(f"QEMU (the program {QEMU}; apt-get install qemu-system-x86)")
    if config is None or not config.emulation:
        lacks += kvm_lacks()
    if config is None:
        return [*lacks, "a guest image (plaudit vm build FOLDER, then --vm-image FOLDER)"]
    return lacks + image_lacks(config.image)


def kvm_lacks() -> list[str]:
    how = "a host with hardware virtualisation; Docker: --device /dev/kvm"
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return [f"{KVM} ({error.strerror}; {how})"]
    return []


def image_lacks(image: Path) -> list[str]:
    """What is wrong with an image: files that are missing, or another version of plaudit in it."""
    again = f"run plaudit vm build {image}"
    try:
        manifest = read_manifest(image)
    except (OSError, ValueError) as error:
        return [f"a guest image at --vm-image {image} ({error}; {again})"]
    missing = [name for name in (KERNEL, INITRD, ROOT) if not (image / name).is_file()]
    if missing:
        return [f"{', '.join(missing)} in --vm-image {image} ({again})"]
    if manifest.get("format") != FORMAT or manifest.get("code") != code_digest().hex():
        return [f"a guest image of this version of plaudit: the one at --vm-image {image} has another ({again})"]
    return []
