"""The list of hostile and faulty programs that a judge must survive, each with the tests that say we do.

The rows are those of the reference list that the sandbox was designed against. A row is kept when the named tests are
there; what they demand is in their names.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ROWS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("while 1", ("processes:an_endless_loop_is_stopped_by_its_cpu_time",)),
    2: ("sleep(100)", ("processes:sleeping_is_stopped_by_the_wall_clock",)),
    3: ("allocate for ever", ("resources:allocating_forever_is_a_memory_limit",)),
    4: ("the same, catching MemoryError", ("resources:catching_memory_errors_does_not_help",)),
    5: ("many children that hoard", ("resources:memory_is_counted_over_all_processes",)),
    6: ("a fork bomb", ("processes:a_fork_bomb_meets_the_process_limit",)),
    7: ("a fork bomb of the shell", ("processes:a_shell_fork_bomb_leaves_nothing_behind",)),
    8: ("many forks, then exit 0", ("processes:children_that_outlive_their_parent_are_killed",)),
    9: ("a thread bomb", ("processes:a_thread_bomb_is_a_runtime_error",)),
    10: ("a daemon that holds stdout", ("processes:a_daemon_that_holds_stdout_holds_up_nobody",)),
    11: ("a thread left sleeping", ("processes:a_thread_left_sleeping_is_waited_for_as_python_does",)),
    12: ("exit handlers that print", ("reach:ordinary_programs_work",)),
    13: ("one file that fills /tmp", ("resources:a_file_cannot_fill_the_disk",)),
    14: ("many files that fill /tmp", ("resources:many_files_cannot_fill_the_disk",)),
    15: ("endless stdout", ("resources:endless_output_is_an_output_limit",)),
    16: ("endless stderr", ("resources:endless_stderr_is_cut_and_does_not_stop_the_program",)),
    17: ("SIGKILL to oneself", ("processes:killing_oneself_is_neither_time_nor_memory",)),
    18: (
        "SIGKILL to all, to 1, to the parent",
        ("processes:nobody_else_can_be_killed", "pid_one:no_signal_reaches_it"),
    ),
    19: ("SIGSTOP to oneself", ("processes:stopping_oneself_is_a_time_limit",)),
    20: ("ignore all signals and spin", ("processes:ignoring_every_signal_does_not_help",)),
    21: ("abort()", ("processes:a_crash_is_a_runtime_error_with_its_signal",)),
    22: ("a null pointer", ("processes:a_crash_is_a_runtime_error_with_its_signal",)),
    23: ("deep recursion", ("processes:deep_recursion_is_a_runtime_error",)),
    24: ("the machine stack runs over", ("processes:an_overflow_of_the_machine_stack_is_a_runtime_error",)),
    25: ("10**10**9", ("processes:work_inside_the_interpreter_is_stopped_as_well",)),
    26: ("a regular expression without end", ("processes:work_inside_the_interpreter_is_stopped_as_well",)),
    27: ("a huge sort", ("processes:work_inside_the_interpreter_is_stopped_as_well",)),
    28: ("exit at import", ("verdicts:a_program_that_does_not_load_fails_every_test", "reach:ordinary_programs_work")),
    29: ("os._exit(0) in a call", ("verdicts:one_bad_test_costs_only_itself", "reach:ordinary_programs_work")),
    30: ("raise SystemExit('msg')", ("fidelity:exit_codes_are_pythons",)),
    31: ("stdin that nobody reads", ("resources:four_megabytes_of_stdin_that_nobody_reads_block_nobody",)),
    32: ("close stdin, close stdout", ("resources:closing_stdin_and_stdout_hurts_only_oneself",)),
    33: ("NUL and invalid UTF-8", ("resources:output_is_compared_as_bytes",)),
    34: ("TCP and DNS", ("reach:there_is_no_network_and_no_waiting_for_it",)),
    35: ("vsock, netlink, packet, alg", ("reach:no_socket_family_but_unix_exists",)),
    36: ("the host's abstract sockets", ("reach:a_socket_that_listens_outside_cannot_be_reached",)),
    37: (
        "the first process: traced, read, listed",
        ("reach:the_first_process_of_the_jail_is_out_of_reach", "pid_one:it_is_not_to_be_traced_read_or_stepped_into"),
    ),
    38: ("what /proc and /etc tell", ("reach:only_oneself_is_seen",)),
    39: ("PASS on every descriptor", ("reach:there_is_no_descriptor_to_write_a_verdict_to",)),
    40: ("namespaces, mounts, io_uring, keys, bpf", ("reach:kernel_interfaces_that_cross_walls_are_closed",)),
    41: ("a foreign system call interface", ("reach:a_foreign_system_call_interface_is_a_security_violation",)),
    42: ("a setuid binary", ("reach:a_setuid_binary_gives_nothing",)),
    43: ("links to secrets", ("reach:a_link_to_a_secret_leads_nowhere", "output:a_fetched_link_leads_nowhere")),
    44: ("write to /usr", ("reach:nothing_outside_tmp_can_be_written",)),
    45: ("all descriptors", ("resources:descriptors_run_out_inside_only",)),
    46: (
        "a walk for expected values",
        ("reach:no_expected_output_is_anywhere_in_the_process", "forgery:no_family_forges_a_check"),
    ),
    47: (
        "limits for the first process",
        ("reach:the_first_process_of_the_jail_is_out_of_reach", "pid_one:its_priority_limits_and_processors_stay"),
    ),
    48: ("equal to everything", ("verdicts:an_exploit_passes_nothing", "forgery:no_family_forges_a_check")),
    49: (
        "patched asserts and test libraries",
        ("verdicts:an_exploit_passes_nothing", "forgery:no_family_forges_a_check"),
    ),
    50: (
        "forged replies",
        ("verdicts:a_forged_message_is_no_right_answer", "codec_attacks:a_malformed_message_is_no_right_answer"),
    ),
    51: ("printing PASSED", ("resources:printing_what_a_passed_test_looks_like_is_only_output",)),
    52: ("right, then without end", ("processes:a_right_answer_before_an_endless_loop_is_no_pass",)),
    53: ("multiprocessing.Pool", ("reach:ordinary_programs_work",)),
    54: ("asyncio, subprocesses, temporary files, threads", ("reach:ordinary_programs_work",)),
    55: (
        "file names that lead elsewhere",
        ("output:a_name_that_leads_elsewhere_is_refused", "output:what_cannot_be_is_refused"),
    ),
    56: (
        "compile bombs",
        (
            "native:including_an_endless_file_is_a_compile_error",
            "native:endless_templates_are_a_compile_error",
            "native:including_a_secret_compiles_to_nothing",
        ),
    ),
    57: ("what the last run left", ("reach:nothing_is_left_for_the_next_run", "reuse:the_next_program_does_not_see")),
    58: ("many copies at once", ("processes:many_copies_at_once_are_not_slow_programs",)),
}


def names_in(module: str) -> set[str]:
    tree = ast.parse((HERE / f"test_{module}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_list_is_kept_by_name(row: int) -> None:
    for name in ROWS[row][1]:
        module, _, test = name.partition(":")
        assert f"test_{test}" in names_in(module)


def test_no_row_is_missing() -> None:
    assert list(ROWS) == list(range(1, 59))
