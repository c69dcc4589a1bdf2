-- A worker wants work: read new entries, if asked to, and see which of these and of the reclaimed ones are worth doing.
--
-- An entry of a stream is a seat, not a job: whoever's turn it is gets the first free one, and the job whose seat it was
-- gets theirs. So streams keep leases and wake workers, and `turns` says whose turn it is.
--
-- KEYS streams to read, highest lane first (none: read nothing)
-- ARGV[1] prefix  [2] now, Unix ms  [3] worker  [4] group  [5] how many to read at most
-- then, per entry that the worker holds already: stream, entry
-- Answers per entry {state, stream, entry, id, task, deadline, deliveries, queued}; state is "run" or "expired". What
-- is no job any more is dropped here.
local prefix, now, worker, group, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])

local entries = {}
for at = 6, #ARGV, 2 do
  entries[#entries + 1] = {ARGV[at], ARGV[at + 1]}
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

-- Whose turn it is: the first job of the tenant that has been given least. Its turn moves on by what the job costs.
local function next_of(line)
  local turns, clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
  local first = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')
  local tenant, turn = first[1], first[2]
  local waiting = prefix .. 'waiting:' .. line .. ':' .. tenant
  local id = redis.call('ZPOPMIN', waiting)[1]
  local after = string.format('%.17g', tonumber(turn) + tonumber(redis.call('HGET', prefix .. 'job:' .. id, 'cost')))
  redis.call('HSET', clock, 'now', turn)
  if redis.call('EXISTS', waiting) == 1 then
    redis.call('ZADD', turns, after, tenant)
  else
    redis.call('ZREM', turns, tenant)
    redis.call('HSET', clock, 'tenant:' .. tenant, after)
    if redis.call('EXISTS', turns) == 0 then
      redis.call('DEL', clock)
    end
  end
  return id
end

-- The job that sits in this entry: the one that has begun in it, else the one whose turn it is now.
local function seated(line, entry)
  local seats = prefix .. 'seats:' .. line
  local holder = redis.call('HGET', seats, entry)
  if not holder then
    return nil
  end
  local tenant = redis.call('HGET', prefix .. 'job:' .. holder, 'tenant') or ''
  if not redis.call('ZSCORE', prefix .. 'waiting:' .. line .. ':' .. tenant, holder) then
    return holder
  end
  local id = next_of(line)
  if id ~= holder then
    local other = redis.call('HGET', prefix .. 'job:' .. id, 'entry')
    redis.call('HSET', seats, entry, id, other, holder)
    redis.call('HSET', prefix .. 'job:' .. id, 'entry', entry)
    redis.call('HSET', prefix .. 'job:' .. holder, 'entry', other)
  end
  return id
end

local answer = {}
for _, one in ipairs(entries) do
  local stream, entry = one[1], one[2]
  local line = string.sub(stream, #prefix + #'stream:' + 1)
  local id = seated(line, entry)
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
