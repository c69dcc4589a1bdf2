"""How work travels: Redis Streams with consumer groups, one stream per queue and lane.

Who does what:
- The API (`producer.Queue`) admits jobs, all or none, in one atomic script that checks the bounds. It waits for replies
  on one list per API process, cancels jobs that nobody waits for, and ends jobs whose deadline passed in the queue.
- A worker (`consumer.Consumer`) reads entries and leases them, renews the leases while it works (`heartbeat`), ends
  each job once, and takes over entries whose worker stopped renewing them (XAUTOCLAIM).
- Every state change is one script, so any process may crash between two of them. Scripts take many jobs at once, and
  write each key once, not once per job.
- An executor leases several small jobs at once: its share of the live ones. It marks which one it has begun, and hands
  the others back when that one takes long (`service.worker.batch`).

Fairness: tenants (API keys) share each lane by start-time fair queueing (Goyal et al., SIGCOMM 1996). Every tenant has
a virtual time, which advances by the cost of its jobs. Next is the first job of the tenant with the least virtual time.
A tenant that had nothing waiting starts at the current virtual time. While two tenants have work waiting, what each was
given differs by no more than their largest jobs together, and by what was handed back meanwhile; a tenant that is
alone gets everything.

Admission is fair, too: a tenant that is alone may fill the whole bound of a queue. Where several have live jobs, each
is admitted up to its share of the bound however full the queue is, up to twice the bound together, and the single job
of a tenant that has none is always admitted (`submit.lua`).

Delivery is at least once: a job may be computed twice if a worker crashes or stalls. The first reply wins, so it is
*answered* once. A job delivered too often is poisoned and ends as `infra_error`; a delivery to an executor that crashed
before it had begun the job does not count. What Redis acknowledged survives a crash of Redis as far as its append-only
file does.

All of this is about one Redis. Several are used side by side: which one a group goes to is decided by its content
(`shards.py`, `service.api.dispatch.shards`), and a worker serves one of them or several (`sharded_consumer.py`).

Not promised: order within a lane across redeliveries.

Keys, all under one prefix `{namespace}:`
  stream:{queue}:{lane}   entries that a worker leases, one per live job
  seats:{queue}:{lane}    hash entry to job
  turns:{queue}:{lane}    zset of the tenants that have jobs waiting, by virtual time (in cost)
  clock:{queue}:{lane}    hash of the virtual clock, and of the virtual times of tenants that have nothing waiting
  waiting:{queue}:{lane}:{tenant}   zset of jobs not begun, by arrival
  load:{queue}            hash cost, drained
  live:{queue}            zset of live jobs by deadline
  tenants:{queue}         hash jobs:{tenant}, cost:{tenant}: the live jobs of each tenant that has any, and their cost
  tags:{queue}            hash of live jobs by tag (of a model's queue: the revision that is to score them)
  active:{queue}          hash of the one tag that is admitted (service.queue.activation)
  order:{queue} reports:{id} sources   activation requests, their reports, and known checkpoints
  job:{id}                hash of one live job
  begun:{queue}           hash of the lane and entry that each worker of several jobs works on
  waiters:{id}            set of reply channels
  reply:{api}             list of reply frames of one API process
  cache:{id} last:{id}    finished replies (deterministic ones long, others briefly)
  suite:{sha}             test suites
  workers, workers:info   live workers and their announcements
  request:{id}…, api:{id} asynchronous and idempotent requests, and their owners (service.api.stores.durable_requests)
  wake:{api}              stream that wakes the event reader of an API process (service.api.stores.event_reader)
  score:{key}             cached scores (service.queue.cached_scores)
  replay:{…} replays…     what reproduces verdicts, and its sizes (service.api.handlers.replays)
  recent:{tenant} failed:{tenant}   streams of recent requests (service.api.stores.activity)
  slow:{kind}:{bucket}:{tenant}     zsets of slow work by its time (the same)
  history:{step}:{number} hash of what happened in a step of time (service.api.stores.history)
  shards                  the names of all shards, if there are several (service.queue.shards)
  written                 written before replicas are waited for
  budgets                 hash of the most bytes per family of keys (service.queue.memory)
  bytes:{family}          hash of the bytes of a family, by when they expire
"""
