-- A worker takes jobs: read new entries, if asked to, and choose the job of each of them and of each reclaimed entry.
-- (After clock.lua.)
--
-- An entry of a stream stands for a lease, not for a job: the job that is next by virtual time takes the first entry
-- that is read, and the job that held that entry gets the other one. So streams keep leases and wake workers, and the
-- virtual times of the tenants decide the order (start-time fair queueing). In Redis `seats` is the hash of entries,
-- `turns` the zset of virtual times, and `clock` the hash of the virtual clock.
--
-- KEYS streams to read, highest lane first (none: read nothing)
-- ARGV[1] prefix  [2] worker  [3] group  [4] how many to read at most
-- then, per entry that the worker holds already: stream, entry
-- Returns per entry {state, stream, entry, id, task, deadline, deliveries, queued}; state is "run" or "expired". Entries
-- whose job has ended are removed here.
local prefix, worker, group, limit, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), clock_ms()

local entries = {}
for arg = 5, #ARGV, 2 do
  entries[#entries + 1] = {ARGV[arg], ARGV[arg + 1]}
end
for _, stream in ipairs(KEYS) do
  if limit > 0 then
    local found = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', limit, 'STREAMS', stream, '>')
    for _, entry in ipairs(found and found[1][2] or {}) do
      entries[#entries + 1] = {stream, entry[1]}
      limit = limit - 1
    end
  end
end

-- The next job: the first of the tenant with the least virtual time, which then advances by the job's cost.
local function pop_next(line)
  local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
  local first = redis.call('ZRANGE', virtual_times, 0, 0, 'WITHSCORES')
  local tenant, start = first[1], first[2]
  local waiting = prefix .. 'waiting:' .. line .. ':' .. tenant
  local id = redis.call('ZPOPMIN', waiting)[1]
  local finish = string.format('%.17g', tonumber(start) + tonumber(redis.call('HGET', prefix .. 'job:' .. id, 'cost')))
  redis.call('HSET', virtual_clock, 'now', start)
  if redis.call('EXISTS', waiting) == 1 then
    redis.call('ZADD', virtual_times, finish, tenant)
  else
    redis.call('ZREM', virtual_times, tenant)
    redis.call('HSET', virtual_clock, 'tenant:' .. tenant, finish)
    if redis.call('EXISTS', virtual_times) == 0 then
      redis.call('DEL', virtual_clock)
    end
  end
  return id
end

-- The job of this entry: the one that has begun on it, else the next one, which swaps entries with the holder.
local function job_of_entry(line, entry)
  local job_by_entry = prefix .. 'seats:' .. line
  local holder = redis.call('HGET', job_by_entry, entry)
  if not holder then
    return nil
  end
  local tenant = redis.call('HGET', prefix .. 'job:' .. holder, 'tenant') or ''
  if not redis.call('ZSCORE', prefix .. 'waiting:' .. line .. ':' .. tenant, holder) then
    return holder
  end
  local id = pop_next(line)
  if id ~= holder then
    local other = redis.call('HGET', prefix .. 'job:' .. id, 'entry')
    redis.call('HSET', job_by_entry, entry, id, other, holder)
    redis.call('HSET', prefix .. 'job:' .. id, 'entry', entry)
    redis.call('HSET', prefix .. 'job:' .. holder, 'entry', other)
  end
  return id
end

local answer = {}
for _, leased in ipairs(entries) do
  local stream, entry = leased[1], leased[2]
  local line = string.sub(stream, #prefix + #'stream:' + 1)
  local id = job_of_entry(line, entry)
  local job = prefix .. 'job:' .. (id or '')
  local fields = redis.call('HMGET', job, 'task', 'deadline', 'queued', 'entry')
  if not fields[1] or fields[4] ~= entry then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    redis.call('HDEL', prefix .. 'seats:' .. line, entry)
  else
    local deliveries = redis.call('HINCRBY', job, 'deliveries', 1)
    redis.call('HSET', job, 'state', 'running', 'worker', worker)
    local state = tonumber(fields[2]) < now and 'expired' or 'run'
    answer[#answer + 1] = {state, stream, entry, id, fields[1], fields[2], deliveries, fields[3]}
  end
end
return answer
