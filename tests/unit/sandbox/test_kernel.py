"""The kernel's files as texts: cgroup layouts of every kind of host, stale owners, the system call table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import cgroup, owners
from sandbox.cgroup import Cgroup, CgroupTree, CgroupTrees, discover, remove_stale
from sandbox.jail_config import masked_paths
from sandbox.procfs import start_time
from sandbox.seccomp import DENIED, build_filter


def mounts(root: Path, *entries: tuple[str, str, str]) -> str:
    lines = []
    for kind, controllers, inner in entries:
        name = controllers.replace(",", "_") or "unified"
        (root / name).mkdir(exist_ok=True)
        lines.append(f"30 25 0:26 {inner} {root / name} rw,nosuid - {kind} cgroup rw,{controllers}")
    return "\n".join(lines)


def test_a_hybrid_host_has_memory_and_pids_from_v1_and_the_rest_from_both(tmp_path: Path) -> None:
    text = mounts(tmp_path, *[("cgroup", name, "/") for name in ("cpuacct", "memory", "pids")], ("cgroup2", "", "/"))
    (tmp_path / "unified" / "cgroup.controllers").write_text("hugetlb\n")
    (tmp_path / "memory" / "job").mkdir()
    own = "4:memory:/job\n3:pids:/\n2:cpuacct:/\n0::/\n"
    trees = CgroupTrees(discover(text, own)).trees
    assert [(tree.version, tree.base.name, set(tree.controllers)) for tree in trees] == [
        (1, "cpuacct", {"cpuacct"}),
        (1, "job", {"memory"}),
        (1, "pids", {"pids"}),
        (2, "unified", {"cpuacct"}),
    ]


def test_co_mounted_controllers_are_one_tree(tmp_path: Path) -> None:
    text = mounts(tmp_path, ("cgroup", "cpu,cpuacct", "/"), ("cgroup", "memory", "/"))
    trees = discover(text, "4:memory:/\n3:cpu,cpuacct:/\n")
    assert [(tree.base.name, set(tree.controllers)) for tree in trees] == [
        ("cpu_cpuacct", {"cpuacct"}),
        ("memory", {"memory"}),
    ]


def test_a_container_without_its_own_cgroup_namespace_finds_its_place(tmp_path: Path) -> None:
    text = mounts(tmp_path, ("cgroup", "memory", "/docker/abc"))
    assert [tree.base for tree in discover(text, "4:memory:/docker/abc\n")] == [tmp_path / "memory"]


def v2_tree(root: Path) -> Path:
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    (root / "cgroup.subtree_control").write_text("")
    (root / "cgroup.procs").write_text("")
    return root


def test_a_v2_host_has_everything_in_one_tree(tmp_path: Path) -> None:
    text = mounts(tmp_path, ("cgroup2", "", "/"))
    v2_tree(tmp_path / "unified")
    found = CgroupTrees(discover(text, "0::/\n"))
    assert found.controllers == {"memory", "pids", "cpuacct"}
    tree = found.trees[0]
    cgroup.delegate(tree)
    assert (tree.base / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_v2_group_is_limited_counted_and_killed_through_its_files(tmp_path: Path) -> None:
    tree = CgroupTree(v2_tree(tmp_path), 2, frozenset({"memory", "pids", "cpuacct"}))
    group = Cgroup.make(CgroupTrees([tree]), "plaudit-1-1-1")
    path = tmp_path / "plaudit-1-1-1"
    group.limit(memory_bytes=1000, processes=7)
    assert (path / "memory.max").read_text() == "1000"
    assert (path / "memory.swap.max").read_text() == "0"
    assert (path / "pids.max").read_text() == "7"
    (path / "cpu.stat").write_text("usage_usec 2500\nuser_usec 1\n")
    (path / "memory.peak").write_text("4096\n")
    (path / "memory.current").write_text("3000\n")
    (path / "memory.stat").write_text("anon 400\nfile 2500\nkernel 100\nshmem 500\ninactive_file 2000\n")
    (path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (path / "pids.events").write_text("max 3\n")
    assert group.memory_bytes() == 900
    assert group.counters() == cgroup.Counters(2_500_000, 4096 - 2100, 1, 3)
    group.kill()
    assert (path / "cgroup.kill").read_text() == "1"


def test_a_v1_group_is_limited_and_counted_through_its_files(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path, 1, frozenset({"memory", "pids", "cpuacct"}))
    group = Cgroup.make(CgroupTrees([tree]), "plaudit-1-1-1")
    path = tmp_path / "plaudit-1-1-1"
    (path / "memory.memsw.limit_in_bytes").touch()  # a kernel that accounts swap
    group.limit(memory_bytes=1000, processes=7)
    assert (path / "memory.limit_in_bytes").read_text() == "1000"
    assert (path / "memory.memsw.limit_in_bytes").read_text() == "1000"
    (path / "cpuacct.usage").write_text("123\n")
    (path / "memory.max_usage_in_bytes").write_text("456\n")
    (path / "memory.usage_in_bytes").write_text("300\n")
    (path / "memory.stat").write_text("cache 100\nrss 150\nshmem 30\nactive_file 70\n")
    (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (path / "pids.events").write_text("max 1\n")
    assert group.memory_bytes() == 180
    assert group.counters() == cgroup.Counters(123, 456 - 120, 2, 1)


def test_a_half_made_group_is_taken_back(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "missing"
    good.mkdir()
    trees = [CgroupTree(good, 1, frozenset({"memory"})), CgroupTree(bad, 1, frozenset({"pids"}))]
    with pytest.raises(FileNotFoundError):
        Cgroup.make(CgroupTrees(trees), "plaudit-1-1-1")
    assert list(good.iterdir()) == []


def test_groups_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    living = f"plaudit-{os.getpid()}-{start_time(os.getpid())}-1-7"
    reused = f"plaudit-{os.getpid()}-1-1-7"  # our pid, another process's start
    for name in (living, reused, "plaudit-4194304-5-1-7", "plaudit-x", "someone-else"):
        (tmp_path / name).mkdir()
    assert remove_stale([tmp_path]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living, "plaudit-x", "someone-else"])


def test_directories_of_the_dead_are_swept(tmp_path: Path) -> None:
    living = tmp_path / f"plaudit-{os.getpid()}-{start_time(os.getpid())}-1"
    dead = tmp_path / "plaudit-4194304-5-1"
    for home in (living, dead):
        (home / "harness").mkdir(parents=True)
    (tmp_path / "uid-0").touch()
    assert owners.sweep(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "uid-0"])


def test_uids_in_use_are_not_given_out_twice(tmp_path: Path) -> None:
    first, lock_a = owners.claim_uids(tmp_path)
    second, lock_b = owners.claim_uids(tmp_path)
    os.close(lock_a)
    third, lock_c = owners.claim_uids(tmp_path)
    os.close(lock_b)
    os.close(lock_c)
    assert (second - first, third) == (2, first)


def test_a_process_that_does_not_exist_has_no_start() -> None:
    assert start_time(4_194_304) is None
    assert isinstance(start_time(os.getpid()), int)


def test_the_filter_is_a_bpf_program_of_modest_size() -> None:
    program = build_filter()
    assert len(program) % 8 == 0
    assert 50 < len(program) // 8 < 400


def test_no_call_is_denied_twice_or_by_pattern() -> None:
    names = [name for group in DENIED.values() for name in group]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").isalnum() for name in names)
    assert not {"mount", "umount2", "fstat", "fsync", "futex", "timer_settime", "clone"} & set(names)


def test_our_own_packages_are_covered_where_a_bound_directory_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(owners.__file__).resolve().parents[1]
    assert str(root / "sandbox") in masked_paths([str(root)])
    assert masked_paths(["/nowhere"]) == ()


def test_artifacts_are_fetched_without_following_anything(tmp_path: Path) -> None:
    """What lies where a program could write may be a link, a pipe or a giant: none of it is copied out."""
    from sandbox.inside.workspace import collect

    (tmp_path / "good").write_bytes(b"program")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "giant").write_bytes(b"x" * 2000)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    out = os.memfd_create("out")
    names = ("link", "giant", "pipe", "folder", "missing", "good")
    sizes = collect({"collect": [(str(tmp_path / name), 0, 1000) for name in names]}, [out])
    assert sizes == [-1, -1, -1, -1, -1, 7]
    assert os.pread(out, 100, 0) == b"program"
    os.close(out)
