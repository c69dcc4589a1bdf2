"""The image of a guest for tests, built once per run of the tests by `plaudit vm build`, and its root folder.

`GUEST_IMAGE=FOLDER` names one that is there already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.vm.build import require_tools
from sandbox.vm_image import ROOT, VmConfig, vm_lacks


def missing_tools(image: Path) -> str:
    """What keeps this host from building an image and emulating a guest; empty if nothing."""
    lacks = [lack for lack in vm_lacks(VmConfig(image, emulation=True)) if "vm-image" not in lack]
    try:
        require_tools()
    except SandboxError as error:
        lacks.append(str(error))
    if shutil.which("unsquashfs") is None:
        lacks.append("unsquashfs (apt-get install squashfs-tools)")
    return "; ".join(lacks)


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with Python and C++."""
    given = os.environ.get("GUEST_IMAGE")
    image = Path(given) if given else tmp_path_factory.mktemp("vm") / "image"
    missing = missing_tools(image)
    if missing:
        pytest.skip(f"needs {missing}")
    if given:
        return image
    command = [sys.executable, "-m", "service.cli", "vm", "build", str(image), "--languages", "python", "cpp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    return image


@pytest.fixture(scope="session")
def guest_root(guest_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder of the image: what an executor's container needs as well."""
    root = tmp_path_factory.mktemp("containers") / "root"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", str(root), str(guest_image / ROOT)], check=True)
    for folder in (root, *root.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    return root
