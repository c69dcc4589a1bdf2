-- End a job once: the first reply wins and goes to every waiter; everything but the reply is removed. (After
-- accounting.lua and bytes.lua.)
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag  [4] hash of live jobs by tenant
-- ARGV[1] prefix  [2] id  [3] reply frame  [4] cache for ms (0: never)  [5] keep the reply for ms  [6] group  [7] entry or ""
-- [8] id to cache it under, if it answers another job than this one; "" or absent: its own
-- Answers 1 if this call ended the job, 0 if it had ended before.
local LEAST_MS = 10000
local prefix, id = ARGV[1], ARGV[2]
local fields = job_fields(prefix, id)
if not fields[1] or (ARGV[7] ~= '' and fields[2] ~= ARGV[7]) then
  return 0
end
local cache_id = (ARGV[8] or '') ~= '' and ARGV[8] or id
local now, cache_ms, keep_ms = clock_ms(), tonumber(ARGV[4]), tonumber(ARGV[5])
local fill = fill_of(prefix, 'results', now)
if fill >= 1 then  -- full: only for an API process whose connection was lost just now
  cache_ms, keep_ms = 0, math.min(keep_ms, LEAST_MS)
else
  cache_ms = shortened(cache_ms, keep_ms, fill)
end
if cache_ms > 0 then
  set_counted(prefix, 'results', prefix .. 'cache:' .. cache_id, ARGV[3], cache_ms, now)
end
if cache_ms == 0 or cache_id ~= id then
  set_counted(prefix, 'results', prefix .. 'last:' .. id, ARGV[3], keep_ms, now)
end
local notified = {}
for _, waiter in ipairs(redis.call('SMEMBERS', prefix .. 'waiters:' .. id)) do
  local channel = string.match(waiter, '^(.*)|')
  if not notified[channel] then
    notified[channel] = true
    redis.call('RPUSH', channel, ARGV[3])
    redis.call('PEXPIRE', channel, ARGV[5])
  end
end
remove_job(KEYS, prefix, ARGV[6], id, fields)
if ARGV[7] ~= '' then  -- a worker did it; jobs that expired say nothing about the rate
  redis.call('HINCRBYFLOAT', KEYS[1], 'drained', fields[3])
end
return 1
