-- Admit jobs, all or none, in one atomic step: two callers at once cannot exceed a bound. (After bytes.lua.)
--
-- KEYS[1] load hash of the queue (cost, drained)      KEYS[2] zset of its live jobs, by deadline
-- KEYS[3] hash of its live jobs by tag                KEYS[4] hash whose `revision` is the one tag that is admitted
-- ARGV[1] prefix  [2] reply channel  [3] max depth  [4] max cost  [5] now, Unix ms  [6] number of jobs  [7] their tag
-- [8] their tenant  [9] number of cache keys to look up first
-- then those keys, then seven per job: id, queue and lane, task, cost, deadline, use cache (1/0), the caller's token
-- then three per test suite that the jobs refer to: digest, frame, keep for ms
-- Returns one of: {"moved", the tag admitted}; {"known", the value of each cache key} if one has a value, with nothing
-- admitted; {"full", depth, cost}; what `no_room` says of the suites; or a list with, per job, "new", "joined" or the
-- frame of a finished reply.
local prefix, channel = ARGV[1], ARGV[2]
local max_depth, max_cost, now, count = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local tag, tenant = ARGV[7], ARGV[8]

local admitted = redis.call('HGET', KEYS[4], 'revision')
if admitted and admitted ~= tag then
  return {'moved', admitted}
end

local known, any = {}, false
for i = 1, tonumber(ARGV[9]) do
  known[i] = redis.call('GET', ARGV[9 + i])
  any = any or known[i]
end
if any then
  return {'known', known}
end

local outcome, new, new_cost, first = {}, 0, 0, 10 + #known
for i = 0, count - 1 do
  local at = first + i * 7
  local id = ARGV[at]
  local cached = ARGV[at + 5] == '1' and redis.call('GET', prefix .. 'cache:' .. id)
  if cached then
    outcome[i + 1] = cached
  elseif redis.call('EXISTS', prefix .. 'job:' .. id) == 1 then
    outcome[i + 1] = 'joined'
  else
    outcome[i + 1] = 'new'
    new = new + 1
    new_cost = new_cost + tonumber(ARGV[at + 3])
  end
end

local depth = redis.call('ZCARD', KEYS[2])
local cost = tonumber(redis.call('HGET', KEYS[1], 'cost') or '0')
if new > 0 and (depth + new > max_depth or (cost + new_cost > max_cost and depth > 0)) then
  return {'full', depth, tostring(cost)}
end

local clock, suite_bytes = clock_ms(), 0
for at = first + count * 7, #ARGV, 3 do
  local suite = prefix .. 'suite:' .. ARGV[at]
  if redis.call('EXISTS', suite) == 0 then
    suite_bytes = suite_bytes + #suite + #ARGV[at + 1] + OVERHEAD
  end
end
local no_room_for_suites = new > 0 and suite_bytes > 0 and no_room(prefix, 'suites', suite_bytes, clock)
if no_room_for_suites then
  return no_room_for_suites
end

for i = 0, count - 1 do
  local at = first + i * 7
  local id, job = ARGV[at], prefix .. 'job:' .. ARGV[at]
  if outcome[i + 1] == 'new' then
    local line = ARGV[at + 1]
    local entry = redis.call('XADD', prefix .. 'stream:' .. line, '*', 'id', id)
    redis.call('HSET', prefix .. 'seats:' .. line, entry, id)
    local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
    if not redis.call('ZSCORE', virtual_times, tenant) then  -- starts where its last job ended, or now
      local times = redis.call('HMGET', virtual_clock, 'now', 'tenant:' .. tenant)
      local start = math.max(tonumber(times[1] or '0'), tonumber(times[2] or '0'))
      redis.call('ZADD', virtual_times, string.format('%.17g', start), tenant)
    end
    local arrival = redis.call('HINCRBY', virtual_clock, 'jobs', 1)
    redis.call('ZADD', prefix .. 'waiting:' .. line .. ':' .. tenant, arrival, id)
    redis.call('HSET', job, 'task', ARGV[at + 2], 'cost', ARGV[at + 3], 'deadline', ARGV[at + 4], 'line', line,
      'entry', entry, 'queued', now, 'deliveries', 0, 'state', 'queued', 'tag', tag, 'tenant', tenant)
    redis.call('ZADD', KEYS[2], ARGV[at + 4], id)
    redis.call('HINCRBYFLOAT', KEYS[1], 'cost', ARGV[at + 3])
    redis.call('HINCRBY', KEYS[3], tag, 1)
    redis.call('DEL', prefix .. 'last:' .. id)
    redis.call('SADD', prefix .. 'waiters:' .. id, channel .. '|' .. ARGV[at + 6])
  elseif outcome[i + 1] == 'joined' then
    if tonumber(ARGV[at + 4]) > tonumber(redis.call('HGET', job, 'deadline')) then
      redis.call('HSET', job, 'deadline', ARGV[at + 4])
      redis.call('ZADD', KEYS[2], ARGV[at + 4], id)
    end
    redis.call('SADD', prefix .. 'waiters:' .. id, channel .. '|' .. ARGV[at + 6])
  end
end

for at = first + count * 7, #ARGV, 3 do
  keep_counted(prefix, 'suites', prefix .. 'suite:' .. ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), clock)
end
return outcome
