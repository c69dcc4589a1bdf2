"""The system calls that no jailed program needs: one table, compiled to a BPF program by libseccomp.

The default is to allow. The filter narrows the kernel surface that namespaces, the uid and rlimits leave open, above
all what crosses namespace borders (vsock, io_uring, keyrings) or reaches the jail's first process under a shared uid.
`mount` and `umount2` are not in the table because PID 1 of the jail mounts its own /proc and /tmp under the same
filter. The program that it forks has no capability and may not unshare, so there they fail without privilege.
"""

from __future__ import annotations

import errno
import os
import tempfile

from sandbox.errors import IsolationUnavailable

# Calls that answer EPERM whatever their arguments; names that a kernel or library does not know are skipped.
DENIED: dict[str, tuple[str, ...]] = {
    "other processes": ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise"),
    "keys and kernel interfaces": (
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    ),
    "mounts and namespaces": (
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "unshare",
        "setns",
    ),
    "the machine": (
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "syslog",
        "acct",
        "quotactl",
        "quotactl_fd",
        "iopl",
        "ioperm",
        "personality",
        "sethostname",
        "setdomainname",
        "settimeofday",
        "clock_settime",
        "clock_adjtime",
        "adjtimex",
        "vhangup",
        "nfsservctl",
        "lookup_dcookie",
    ),
    "what others do": ("inotify_init", "inotify_init1", "inotify_add_watch"),
    "uncharged memory": ("io_setup", "io_submit", "io_getevents", "io_pgetevents", "io_cancel", "io_destroy"),
    "files, memory, IPC": (
        "name_to_handle_at",
        "open_by_handle_at",
        "memfd_secret",
        "vmsplice",
        "shmget",
        "shmat",
        "shmctl",
        "shmdt",
        "msgget",
        "msgsnd",
        "msgrcv",
        "msgctl",
        "semget",
        "semop",
        "semtimedop",
        "semctl",
        "mq_open",
        "mq_unlink",
        "mq_timedsend",
        "mq_timedreceive",
        "mq_notify",
        "mq_getsetattr",
        "fanotify_init",
        "fanotify_mark",
        "migrate_pages",
        "move_pages",
        "mbind",
        "set_mempolicy",
        "set_mempolicy_home_node",
    ),
}

NAMESPACE_FLAGS = (
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
)
# Calls about a process that would reach the jail's first process where it shares the programs' uid. It is number 1 of a
# jail with a pid namespace; without one they are allowed only for the caller itself (pid argument 0).
OTHER_PROCESSES = {
    "prlimit64": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
    "sched_setaffinity": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
# Whose: for a user, or a group of processes, these would reach the jail's first process where it shares the uid.
ONE_PROCESS_ONLY = {"setpriority": 0, "ioprio_set": 1}  # PRIO_PROCESS, IOPRIO_WHO_PROCESS
# Mono sets the priority of its threads by their ids, and a refusal makes it print a warning to the program's output.
# The filter answers that it was done, so Mono prints nothing; nothing is done.
FEIGNED = {"sched_setscheduler": 0}
FIRST_PROCESS = 1
O_TMPFILE = 0o20000000
MFD_HUGETLB, MAP_HUGETLB = 0x4, 0x40000
F_SETLEASE, F_GETLK, F_OFD_GETLK, F_NOTIFY = 1024, 5, 36, 1026
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
AF_UNIX = 1
SOCK_TYPE_MASK, SOCK_DGRAM, SOCK_RAW = 0xF, 2, 3
LOW_32 = 0xFFFFFFFF


def build_filter(*, pairs_only: bool = False, counted: bool = True) -> bytes:
    """The BPF program, ready for the kernel. Raises IsolationUnavailable where libseccomp is not installed.

    `pairs_only`: only connected socket pairs. Without a network namespace and a root folder of its own, a Unix socket
    could reach any server on the host, and a datagram pair can be sent elsewhere.
    Not `counted`: no files in memory, because only a cgroup counts them.
    """
    try:
        import pyseccomp as s
    except (ImportError, OSError, RuntimeError) as error:
        raise IsolationUnavailable(
            f"seccomp: libseccomp cannot be used ({error}); install libseccomp2 and pyseccomp"
        ) from None
    filters = s.SyscallFilter(s.ALLOW)
    filters.set_attr(s.Attr.ACT_BADARCH, s.KILL_PROCESS)
    for names in DENIED.values():
        for name in names:
            deny(s, filters, name)
    for flag in NAMESPACE_FLAGS:
        deny(s, filters, "clone", s.Arg(0, s.MASKED_EQ, flag, flag))
    filters.add_rule(s.ERRNO(errno.ENOSYS), "clone3")  # its flags lie in memory; the C library falls back to clone
    if not counted:
        deny(s, filters, "memfd_create")
    deny(s, filters, "memfd_create", s.Arg(1, s.MASKED_EQ, MFD_HUGETLB, MFD_HUGETLB))
    filters.add_rule(s.ERRNO(errno.ENOMEM), "mmap", s.Arg(3, s.MASKED_EQ, MAP_HUGETLB, MAP_HUGETLB))
    # Whole-file locks and questions about others' locks reach through the read-only files that all jails share.
    filters.add_rule(s.ERRNO(errno.ENOLCK), "flock")
    for request in (F_GETLK, F_OFD_GETLK, F_SETLEASE, F_NOTIFY):
        filters.add_rule(s.ERRNO(errno.EINVAL), "fcntl", s.Arg(1, s.MASKED_EQ, LOW_32, request))
    # Files without a name leave no trace in a folder, and the count of files must not tell of an earlier run.
    filters.add_rule(s.ERRNO(errno.EOPNOTSUPP), "openat", s.Arg(2, s.MASKED_EQ, O_TMPFILE, O_TMPFILE))
    filters.add_rule(s.ERRNO(errno.EOPNOTSUPP), "open", s.Arg(1, s.MASKED_EQ, O_TMPFILE, O_TMPFILE))
    filters.add_rule(s.ERRNO(errno.ENOSYS), "openat2")  # its flags lie in memory
    for name in ("sync", "syncfs"):  # of the whole machine's disks; nothing that a program writes lies on one
        filters.add_rule(s.ERRNO(0), name)
    filters.add_rule(s.ERRNO(errno.EAFNOSUPPORT), "socketpair", s.Arg(0, s.NE, AF_UNIX))
    if pairs_only:
        filters.add_rule(s.ERRNO(errno.EAFNOSUPPORT), "socket")
        for kind in (SOCK_DGRAM, SOCK_RAW):
            deny(s, filters, "socketpair", s.Arg(1, s.MASKED_EQ, SOCK_TYPE_MASK, kind))
    else:
        filters.add_rule(s.ERRNO(errno.EAFNOSUPPORT), "socket", s.Arg(0, s.NE, AF_UNIX))
    for request in (TIOCSTI, TIOCLINUX):
        deny(s, filters, "ioctl", s.Arg(1, s.MASKED_EQ, LOW_32, request))
    for name, position in OTHER_PROCESSES.items():
        others = s.Arg(position, s.NE, 0) if pairs_only else s.Arg(position, s.MASKED_EQ, LOW_32, FIRST_PROCESS)
        deny(s, filters, name, others)
    for name, process in ONE_PROCESS_ONLY.items():
        deny(s, filters, name, s.Arg(0, s.NE, process))
    for name, position in FEIGNED.items():
        filters.add_rule(s.ERRNO(0), name, s.Arg(position, s.NE, 0))
    with tempfile.TemporaryFile() as file:
        filters.export_bpf(file)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return os.read(file.fileno(), 1 << 20)


def deny(s: object, filters: object, name: str, *args: object) -> None:
    """Add one EPERM rule, unless this libseccomp does not know the call."""
    if s.resolve_syscall(s.Arch.NATIVE, name) >= 0:  # type: ignore[attr-defined]
        filters.add_rule(s.ERRNO(errno.EPERM), name, *args)  # type: ignore[attr-defined]
