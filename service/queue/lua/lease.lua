-- A worker takes jobs: read new entries, if asked to, and choose the job of each of them and of each reclaimed entry.
-- (After clock.lua.)
--
-- An entry of a stream stands for a lease, not for a job: the job that is next by virtual time takes the first entry
-- that is read, and the job that held that entry gets the other one. So streams keep leases and wake workers, and the
-- virtual times of the tenants decide the order (start-time fair queueing). In Redis `seats` is the hash of entries,
-- `turns` the zset of virtual times, and `clock` the hash of the virtual clock.
--
-- A worker that takes several jobs and does one after the other marks which one it has begun, in the hash `begun`; the
-- first is marked here. A job that such a worker lost before it had begun it was not tried: its delivery does not count.
--
-- KEYS streams to read, highest lane first (none: read nothing)
-- ARGV[1] prefix  [2] worker  [3] group  [4] how many to read at most  [5] the worker's name if it marks what it begins,
-- else ""  [6] how many workers share the jobs (0: read as many as asked for); then, per entry that the worker holds
-- already: stream, entry
-- Returns per entry {state, stream, entry, id, task, deadline, deliveries, queued, trace}; state is "run" or "expired". Entries
-- whose job has ended are removed here.
local prefix, worker, group, limit, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), clock_ms()
local marks, num_workers = ARGV[5], tonumber(ARGV[6])

local function line_of(stream)
  return string.sub(stream, #prefix + #'stream:' + 1)
end

local function queue_of(line)
  return string.match(line, '^(.*):[^:]*$')
end

if num_workers > 0 and limit > 1 then  -- an equal part of what is live
  local num = redis.call('ZCARD', prefix .. 'live:' .. queue_of(line_of(KEYS[1])))
  limit = math.max(1, math.min(limit, math.ceil(num / num_workers)))
end

local entries, lines = {}, {}  -- lines: what is known of each lane, by its name
local function add(stream, entry, is_new)
  local line = line_of(stream)
  lines[line] = lines[line] or {num = 0, entries = {}, holders = {}}
  lines[line].num = lines[line].num + 1
  table.insert(lines[line].entries, entry)
  entries[#entries + 1] = {stream = stream, line = line, entry = entry, is_new = is_new}
end
for arg = 7, #ARGV, 2 do
  add(ARGV[arg], ARGV[arg + 1], false)
end
for _, stream in ipairs(KEYS) do
  if limit > 0 then
    local found = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', limit, 'STREAMS', stream, '>')
    for _, entry in ipairs(found and found[1][2] or {}) do
      add(stream, entry[1], true)
      limit = limit - 1
    end
  end
end
for line, known in pairs(lines) do
  local holders = redis.call('HMGET', prefix .. 'seats:' .. line, unpack(known.entries))
  for at, entry in ipairs(known.entries) do
    known.holders[entry] = holders[at]
  end
end

local FIELDS = {'task', 'deadline', 'queued', 'entry', 'cost', 'tenant', 'state', 'deliveries', 'worker', 'marks',
  'trace'}
local function read_job(id)
  local values = redis.call('HMGET', prefix .. 'job:' .. id, unpack(FIELDS))
  local job = {id = id}
  for at, name in ipairs(FIELDS) do
    job[name] = values[at]
  end
  return job
end

-- Store the turns that the chosen tenant of a lane has had.
local function end_turns(line, known)
  local turn = known.turn
  if not turn then
    return
  end
  known.turn = nil
  local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
  local waiting = prefix .. 'waiting:' .. line .. ':' .. turn.tenant
  redis.call('ZPOPMIN', waiting, turn.taken)
  local time = string.format('%.17g', turn.time)
  if turn.ids[turn.taken + 1] then
    redis.call('HSET', virtual_clock, 'now', turn.now)
    redis.call('ZADD', virtual_times, time, turn.tenant)
  else
    redis.call('ZREM', virtual_times, turn.tenant)
    if redis.call('EXISTS', virtual_times) == 0 then
      redis.call('DEL', virtual_clock)
    else
      redis.call('HSET', virtual_clock, 'now', turn.now, 'tenant:' .. turn.tenant, time)
    end
  end
end

-- The next job: the first of the tenant with the least virtual time, which then advances by the job's cost. A tenant
-- that stays first is asked for its jobs once.
local function next_job(line, known)
  local turn = known.turn
  if turn and (not turn.ids[turn.taken + 1] or (turn.rival and turn.time >= turn.rival)) then
    end_turns(line, known)
    turn = nil
  end
  if not turn then
    local first = redis.call('ZRANGE', prefix .. 'turns:' .. line, 0, 1, 'WITHSCORES')
    turn = {tenant = first[1], time = tonumber(first[2]), rival = tonumber(first[4]), taken = 0}
    turn.ids = redis.call('ZRANGE', prefix .. 'waiting:' .. line .. ':' .. turn.tenant, 0, known.num)
    known.turn = turn
  end
  turn.taken = turn.taken + 1
  known.num = known.num - 1
  local job = read_job(turn.ids[turn.taken])
  turn.now = string.format('%.17g', turn.time)
  turn.time = turn.time + tonumber(job.cost)
  return job
end

-- The job of this entry: the one that has begun on it, else the next one, which swaps entries with the holder.
local function job_of_entry(leased)
  local known = lines[leased.line]
  local holder = known.holders[leased.entry]
  if not holder then
    return nil
  end
  if not leased.is_new then  -- only an entry that was read before can be of a job that has begun
    local job = read_job(holder)
    if not job.task or job.state == 'running' then
      return job
    end
  end
  local job = next_job(leased.line, known)
  if job.id ~= holder then
    local other = job.entry
    known.holders[leased.entry], known.holders[other] = job.id, holder
    redis.call('HSET', prefix .. 'seats:' .. leased.line, leased.entry, job.id, other, holder)
    redis.call('HSET', prefix .. 'job:' .. holder, 'entry', other)
    job.entry = leased.entry
  end
  return job
end

-- Whether the worker that held this job had begun it, as far as it is known.
local function was_tried(job, leased)
  if job.state ~= 'running' or not job.marks or job.marks ~= job.worker then
    return true
  end
  local begun = redis.call('HGET', prefix .. 'begun:' .. queue_of(leased.line), job.worker)
  return begun == leased.line .. ' ' .. leased.entry
end

local answer = {}
for _, leased in ipairs(entries) do
  local stream, entry = leased.stream, leased.entry
  local job = job_of_entry(leased)
  if not job or not job.task or job.entry ~= entry then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    redis.call('HDEL', prefix .. 'seats:' .. leased.line, entry)
  else
    local deliveries = tonumber(job.deliveries) + (was_tried(job, leased) and 1 or 0)
    redis.call('HSET', prefix .. 'job:' .. job.id, 'state', 'running', 'entry', entry, 'deliveries', deliveries,
      'worker', worker, 'marks', marks)
    local state = tonumber(job.deadline) < now and 'expired' or 'run'
    if #answer == 0 and marks ~= '' then
      redis.call('HSET', prefix .. 'begun:' .. queue_of(leased.line), worker, leased.line .. ' ' .. entry)
    end
    answer[#answer + 1] = {state, stream, entry, job.id, job.task, job.deadline, deliveries, job.queued,
      job.trace or ''}
  end
end
for line, known in pairs(lines) do
  end_turns(line, known)
end
return answer
