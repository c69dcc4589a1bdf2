"""What to start for a given load, what it costs, and where it will be held up: `plaudit plan`.

- `costs`: what one program, one token, one job costs each part of the service. Measured (`measure`), never assumed.
- `capacity`: from these and from a workload, by arithmetic: how many processes of each kind, and how busy each
  part is.
- `simulator`: the same as a simulation of events in which the queue's own scripts, the executors' own pace and the
  scorers' own scheduler decide. It finds what arithmetic does not: bursts, tails and uneven shards.

Costs are CPU time, so a host that other work slows down gives the same ones; rates are derived from them.
"""
