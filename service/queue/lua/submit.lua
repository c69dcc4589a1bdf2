-- Admit jobs, all or none, in one atomic step: two callers at once cannot exceed a bound. (After accounting.lua,
-- clock.lua and bytes.lua.)
--
-- Who is admitted: whoever fits into the queue's bound; beyond it, up to twice the bound, a tenant whose own jobs stay
-- within its share (the bound over the tenants that have live jobs, this one included); and always the single job of a
-- tenant that has no live job. So one tenant alone may use the whole bound, and nobody can be shut out.
--
-- KEYS[1] load hash of the queue (cost, drained)      KEYS[2] zset of its live jobs, by deadline
-- KEYS[3] hash of its live jobs by tag                KEYS[4] hash of its live jobs, and their cost, by tenant
-- KEYS[5] hash whose `revision` is the one tag that is admitted
-- ARGV[1] prefix  [2] reply channel  [3] max depth  [4] max cost  [5] number of jobs  [6] their tag  [7] their tenant
-- [8] group  [9] traceparent of the request, or ""  [10] number of cache keys to look up first
-- then those keys, then seven per job: id, queue and lane, task, cost, deadline, use cache (1/0), the caller's token
-- then three per test suite that the jobs refer to: digest, frame, keep for ms
-- Returns one of: {"moved", the tag admitted}; {"known", the value of each cache key} if one has a value, with nothing
-- admitted; {"full", depth, cost, the tenant's own depth, its cost, tenants}; what `no_room` says of the suites; or a list
-- with, per job, "new", "joined" or the frame of a finished reply.
local prefix, channel = ARGV[1], ARGV[2]
local max_depth, max_cost, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local tag, tenant, group, trace, now = ARGV[6], ARGV[7], ARGV[8], ARGV[9], clock_ms()

local admitted = redis.call('HGET', KEYS[5], 'revision')
if admitted and admitted ~= tag then
  return {'moved', admitted}
end

local known, any = {}, false
for i = 1, tonumber(ARGV[10]) do
  known[i] = redis.call('GET', ARGV[10 + i])
  any = any or known[i]
end
if any then
  return {'known', known}
end

-- What is stored under each name, or false.
local function stored(names)
  local values = {}
  for from = 1, #names, 1000 do
    for _, value in ipairs(redis.call('MGET', unpack(names, from, math.min(from + 999, #names)))) do
      values[#values + 1] = value
    end
  end
  return values
end

-- Whether any of these exists.
local function any_exists(names)
  for from = 1, #names, 1000 do
    if redis.call('EXISTS', unpack(names, from, math.min(from + 999, #names))) > 0 then
      return true
    end
  end
  return false
end

local outcome, new, new_cost, first = {}, 0, 0, 11 + #known
local caches, uncached = {}, {}
for i = 1, count do
  local at = first + (i - 1) * 7
  if ARGV[at + 5] == '1' then
    caches[#caches + 1] = prefix .. 'cache:' .. ARGV[at]
  end
end
local frames, next_frame = stored(caches), 1
for i = 1, count do
  local at = first + (i - 1) * 7
  if ARGV[at + 5] == '1' then
    outcome[i] = frames[next_frame]
    next_frame = next_frame + 1
  end
  if not outcome[i] then
    uncached[#uncached + 1] = prefix .. 'job:' .. ARGV[at]
  end
end
local any_live = any_exists(uncached)
for i = 1, count do
  local at = first + (i - 1) * 7
  if not outcome[i] then
    if any_live and redis.call('EXISTS', prefix .. 'job:' .. ARGV[at]) == 1 then
      outcome[i] = 'joined'
    else
      outcome[i] = 'new'
      new = new + 1
      new_cost = new_cost + tonumber(ARGV[at + 3])
    end
  end
end

local depth = redis.call('ZCARD', KEYS[2])
local cost = tonumber(redis.call('HGET', KEYS[1], 'cost') or '0')
local own = redis.call('HMGET', KEYS[4], 'jobs:' .. tenant, 'cost:' .. tenant)
local own_depth, own_cost = tonumber(own[1] or '0'), tonumber(own[2] or '0')
local tenants = redis.call('HLEN', KEYS[4]) / 2 + (own_depth == 0 and 1 or 0)
local fits = depth + new <= max_depth and (cost + new_cost <= max_cost or depth == 0)
local fits_share = (own_depth + new) * tenants <= max_depth and (own_cost + new_cost) * tenants <= max_cost
  and depth + new <= 2 * max_depth and cost + new_cost <= 2 * max_cost
local newcomer = new == 1 and own_depth == 0
if new > 0 and not (fits or fits_share or newcomer) then
  return {'full', depth, tostring(cost), own_depth, tostring(own_cost), tenants}
end

-- Put jobs at the end of a tenant's jobs in a lane. Returns their entries.
local function join_line(ids, line, owner)
  local entries, seats, waiting = {}, {}, {}
  local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
  if not redis.call('ZSCORE', virtual_times, owner) then  -- starts where its last job ended, or now
    local times = redis.call('HMGET', virtual_clock, 'now', 'tenant:' .. owner)
    local start = math.max(tonumber(times[1] or '0'), tonumber(times[2] or '0'))
    redis.call('ZADD', virtual_times, string.format('%.17g', start), owner)
  end
  local arrival = redis.call('HINCRBY', virtual_clock, 'jobs', #ids) - #ids
  for at, id in ipairs(ids) do
    entries[at] = redis.call('XADD', prefix .. 'stream:' .. line, '*', 'id', id)
    seats[2 * at - 1], seats[2 * at] = entries[at], id
    waiting[2 * at - 1], waiting[2 * at] = arrival + at, id
  end
  call_with(seats, 'HSET', prefix .. 'seats:' .. line)
  call_with(waiting, 'ZADD', prefix .. 'waiting:' .. line .. ':' .. owner)
  return entries
end

-- Move a job that waits in a lower lane than `line` there. One that has begun stays where it is.
local RANK = {high = 1, normal = 2, low = 3}
local function lift(id, line)
  local job = read_job(prefix, id)
  if not job.begun and RANK[string.match(line, '[^:]*$')] < RANK[string.match(job.line, '[^:]*$')] then
    leave_lines(prefix, group, {job})
    redis.call('HSET', prefix .. 'job:' .. id, 'line', line, 'entry', join_line({id}, line, job.tenant)[1])
  end
end

local suite_bytes = 0
for at = first + count * 7, #ARGV, 3 do
  local suite = prefix .. 'suite:' .. ARGV[at]
  if redis.call('EXISTS', suite) == 0 then
    suite_bytes = suite_bytes + #suite + #ARGV[at + 1] + OVERHEAD
  end
end
local no_room_for_suites = new > 0 and suite_bytes > 0 and no_room(prefix, 'suites', suite_bytes, now)
if no_room_for_suites then
  return no_room_for_suites
end

local by_line, live, endings, entry_of = {}, {}, {}, {}
for i = 1, count do
  local at = first + (i - 1) * 7
  if outcome[i] == 'new' then
    local id, line = ARGV[at], ARGV[at + 1]
    by_line[line] = by_line[line] or {}
    table.insert(by_line[line], id)
    live[#live + 1], live[#live + 2] = ARGV[at + 4], id
    endings[#endings + 1] = prefix .. 'last:' .. id
  end
end
for line, ids in pairs(by_line) do
  for at, entry in ipairs(join_line(ids, line, tenant)) do
    entry_of[ids[at]] = entry
  end
end
if new > 0 then
  call_with(live, 'ZADD', KEYS[2])
  call_with(endings, 'DEL')
  redis.call('HINCRBYFLOAT', KEYS[1], 'cost', new_cost)
  redis.call('HINCRBY', KEYS[3], tag, new)
  count_tenant(KEYS[4], tenant, new, new_cost)
end
for i = 1, count do
  local at = first + (i - 1) * 7
  local id, job = ARGV[at], prefix .. 'job:' .. ARGV[at]
  if outcome[i] == 'new' then
    redis.call('HSET', job, 'task', ARGV[at + 2], 'cost', ARGV[at + 3], 'deadline', ARGV[at + 4], 'line', ARGV[at + 1],
      'entry', entry_of[id], 'queued', now, 'deliveries', 0, 'state', 'queued', 'tag', tag, 'tenant', tenant)
    if trace ~= '' then
      redis.call('HSET', job, 'trace', trace)
    end
    redis.call('SADD', prefix .. 'waiters:' .. id, channel .. '|' .. ARGV[at + 6])
  elseif outcome[i] == 'joined' then
    lift(id, ARGV[at + 1])
    if tonumber(ARGV[at + 4]) > tonumber(redis.call('HGET', job, 'deadline')) then
      redis.call('HSET', job, 'deadline', ARGV[at + 4])
      redis.call('ZADD', KEYS[2], ARGV[at + 4], id)
    end
    redis.call('SADD', prefix .. 'waiters:' .. id, channel .. '|' .. ARGV[at + 6])
  end
end

for at = first + count * 7, #ARGV, 3 do
  keep_counted(prefix, 'suites', prefix .. 'suite:' .. ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), now)
end
return outcome
