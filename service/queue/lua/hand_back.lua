-- A worker gives back jobs that it has leased and not begun: each is the next of its tenant again, its delivery does not
-- count, and its cost is taken off the tenant's virtual time.
--
-- ARGV[1] prefix  [2] worker  [3] group; then pairs: id, entry
-- Answers how many it gave back: not those that have ended, or that another worker has taken over.
local prefix, worker, group, num = ARGV[1], ARGV[2], ARGV[3], 0
for at = #ARGV - 1, 4, -2 do  -- the last one first, so that they wait in the order in which they were taken
  local id, entry = ARGV[at], ARGV[at + 1]
  local job = prefix .. 'job:' .. id
  local fields = redis.call('HMGET', job, 'line', 'entry', 'worker', 'tenant', 'cost', 'deliveries', 'state')
  if fields[2] == entry and fields[3] == worker and fields[7] == 'running' then
    local line, tenant, cost = fields[1], fields[4] or '', tonumber(fields[5])
    local stream, seats = prefix .. 'stream:' .. line, prefix .. 'seats:' .. line
    local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
    local waiting = prefix .. 'waiting:' .. line .. ':' .. tenant
    local new_entry = redis.call('XADD', stream, '*', 'id', id)  -- first: a user of an older version may not do it
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    redis.call('HDEL', seats, entry)
    redis.call('HSET', seats, new_entry, id)
    local times = redis.call('HMGET', virtual_clock, 'tenant:' .. tenant, 'now')
    local time = redis.call('ZSCORE', virtual_times, tenant) or times[1] or times[2] or '0'
    redis.call('ZADD', virtual_times, string.format('%.17g', math.max(0, tonumber(time) - cost)), tenant)
    redis.call('HSETNX', virtual_clock, 'jobs', 0)
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    redis.call('ZADD', waiting, tonumber(first[2] or '1') - 1, id)
    redis.call('HSET', job, 'entry', new_entry, 'state', 'queued', 'deliveries', math.max(0, fields[6] - 1))
    num = num + 1
  end
end
return num
