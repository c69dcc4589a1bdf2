"""The one way work travels: Redis Streams with consumer groups, one stream per queue and lane.

Who does what. The API (`producer.Queue`) admits jobs, all or none, in one atomic script that knows the bounds; waits
for replies on one list per API process; takes back what nobody waits for; and ends jobs whose deadline passed while
no worker came for them. A worker (`consumer.Consumer`) reads entries, leases them, keeps the lease alive while it
works, ends each job once, and takes over entries whose worker fell silent (XAUTOCLAIM). Every state change is a
script, so any process may die between two of them.

Tenants (API keys) take turns, lane by lane: next is the first job of the tenant that was given least, counted in cost;
who was away begins where the others are (start-time fair queueing, Goyal et al., SIGCOMM 1996). While two tenants have
work waiting, what each was given differs by no more than their largest jobs together; who is alone gets everything.

Delivery is at least once: a job may be computed twice when a worker dies or stalls, and the first ending wins, so it
is *answered* once. A job delivered too often is poisoned and ends as `infra_error`. What Redis acknowledged survives
Redis' own death as far as its append-only file does. Not promised: order within a lane across redeliveries.

Keys, all under one prefix `{namespace}:`
  stream:{queue}:{lane}   entries: seats that a worker leases, one a live job
  seats:{queue}:{lane}    hash entry to job
  turns:{queue}:{lane}    zset of the tenants that have jobs not begun, by what they were given (in cost)
  clock:{queue}:{lane}    hash of the turn that has come, and of those of tenants that have nothing waiting
  waiting:{queue}:{lane}:{tenant}   zset of jobs not begun, by arrival
  load:{queue}            hash cost, drained
  live:{queue}            zset of live jobs by deadline
  tags:{queue}            hash of live jobs by tag (of a model's queue: the revision that is to score them)
  active:{queue}          hash of the one tag that is admitted (service.queue.activation, with order, reports, sources)
  job:{id}                hash of one live job
  waiters:{id}            set of reply channels
  reply:{api}             list of reply frames of one API process
  cache:{id} last:{id}    finished replies (deterministic ones long, others briefly)
  suite:{sha}             test suites
  workers, workers:info   who is alive
  request:{id}…, api:{id} asynchronous and idempotent requests, and their owners (service.api.stores.durable_requests)
  score:{key}             remembered scores (service.api.handlers.score_cache)
"""
