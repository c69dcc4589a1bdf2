"""plaudit on a Ray cluster that a trainer already has: `plaudit ray up`, or `on_ray.up` in a driver.

Who runs where:
- One controller, a detached actor that is named after the deployment, starts the others and looks at them once a
  second. It computes nothing. It, the broker and the API are on the head node unless resources or labels say otherwise.
- Each other actor is one process tree of this package, started by `tree`: a broker, an API, a scorer with its GPU, or
  as many executors as the actor has CPUs. The worker loop, the judge and the queue are those of `plaudit up`.

Who decides:
- `placement` says what an actor asks Ray for, `scaling` how many executors there should be, `reconcile` which actors
  are started, drained and removed. These are functions of values; `controller` carries them out.

Who may crash:
- A process of a tree is restarted by the tree. A tree or a node that is gone is replaced by the controller, and its
  jobs are taken by others when their leases end.
- The controller is restarted by Ray and finds its actors by their names.
- An embedded broker that is gone with its node takes the queue along: requests in flight end with typed, retryable
  errors. A Redis of one's own (`--redis-url`) does not depend on the cluster.

Who cleans up:
- A tree gets SIGTERM from the kernel when its actor ends, in whichever way, and leaves nothing behind.
- `down` drains the API, then the workers, then the broker, and ends all actors of the deployment.

Not promised: that an actor finds a place. It waits until Ray has what it asks for, and `status` says what is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.on_ray.deployment import down, status, up
    from service.on_ray.options import DeploymentOptions

__all__ = ["DeploymentOptions", "down", "status", "up"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: Ray takes a second to import."""
    if name not in __all__:
        raise AttributeError(f"module 'service.on_ray' has no attribute {name!r}")
    place = "options" if name == "DeploymentOptions" else "deployment"
    return getattr(importlib.import_module(f"service.on_ray.{place}"), name)
