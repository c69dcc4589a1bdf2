"""`training.pipeline.cli` with FSDP on processes without accelerators, for `accelerate launch`.

accelerate turns FSDP off where there is no accelerator; here it is told that the gloo processes have one, and
everything behind that (torch's sharding, gathering of weights, saving) is what runs on GPUs.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

_made = PartialState.__init__


def _pretends(self: PartialState, *arguments: Any, **settings: Any) -> None:
    _made(self, *arguments, **settings)
    if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_HPU


if __name__ == "__main__":
    PartialState.__init__ = _pretends
    from training.pipeline.cli import main

    code = main(sys.argv[1:])
    print("sharded by", AcceleratorState().distributed_type.value, AcceleratorState().fsdp_plugin.fsdp_version)
    sys.exit(code)
