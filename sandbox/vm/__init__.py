"""Level `vm`: a virtual machine per executor, with the same sandbox in it.

- Who runs where: the executor starts QEMU (`machine.py`). In the guest the agent (`guest.py`) opens a sandbox of level
  `strong` and judges; the executor forwards a program with its suite and reads the report (`vm_sandbox.py`).
- Where the verdict is computed: in the guest, outside the jails, as at level `strong`. A program that leaves its jail
  owns its guest, and can give wrong verdicts there until that guest ends; it does not own the host.
- What the host trusts: nothing that a guest says but its verdicts. Every message is bounded and decoded into one type.
- Who cleans up: a guest that is silent, contradicts itself or has ended is killed, and the next judgement starts a
  fresh one. If the executor is killed, the kernel kills QEMU with it.
"""
