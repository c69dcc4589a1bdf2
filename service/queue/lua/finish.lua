-- End jobs of one queue, each once: the first reply wins and goes to every waiter; everything but the reply is removed.
-- (After accounting.lua, clock.lua and bytes.lua.)
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag  [4] hash of live jobs by tenant
-- [5] hash of what workers have begun
-- ARGV[1] prefix  [2] keep replies for ms  [3] group  [4] worker  [5] what it works on from now on, or ""
-- then five per job: id, reply frame, cache for ms (0: never), entry or "", id to cache it under if it answers another job
-- than this one, or ""
-- Answers per job 1 if this call ended it, 0 if it had ended before.
local LEAST_MS = 10000
local prefix, reply_ms, group, now = ARGV[1], tonumber(ARGV[2]), ARGV[3], clock_ms()
local fill = fill_of(prefix, 'results', now)
local sizes, frames, removed, outcome, ended, drained = {}, {}, {}, {}, {}, 0
local waiters, frame_of = {}, {}  -- of the jobs that end here

local function keep_frame(name, frame, keep_ms)
  redis.call('SET', prefix .. name, frame, 'PX', keep_ms)
  sizes[keep_ms] = (sizes[keep_ms] or 0) + #prefix + #name + #frame + OVERHEAD
end

for at = 6, #ARGV, 5 do
  local id, frame, cache_ms, entry, cache_id = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local job = not ended[id] and read_job(prefix, id)
  if not job or (entry ~= '' and job.entry ~= entry) then
    outcome[#outcome + 1] = 0
  else
    outcome[#outcome + 1] = 1
    ended[id] = true
    removed[#removed + 1] = job
    if entry ~= '' then  -- a worker did it; jobs that expired say nothing about the rate
      drained = drained + job.cost
    end
    local keep_ms = reply_ms
    if fill >= 1 then  -- full: only for an API process whose connection was lost just now
      cache_ms, keep_ms = 0, math.min(keep_ms, LEAST_MS)
    else
      cache_ms = shortened(cache_ms, keep_ms, fill)
    end
    local own = cache_id == '' or cache_id == id
    if cache_ms > 0 then
      keep_frame('cache:' .. (own and id or cache_id), frame, cache_ms)
    end
    if cache_ms == 0 or not own then
      keep_frame('last:' .. id, frame, keep_ms)
    end
    frame_of[#frame_of + 1] = frame
    waiters[#waiters + 1] = prefix .. 'waiters:' .. id
  end
end

-- The reply channels in these sets of waiters.
local function channels_of(sets)
  local channels = {}
  for from = 1, #sets, 1000 do
    for _, waiter in ipairs(redis.call('SUNION', unpack(sets, from, math.min(from + 999, #sets)))) do
      channels[string.match(waiter, '^(.*)|')] = true
    end
  end
  return channels
end

local channels = channels_of(waiters)
local is_shared = next(channels) and next(channels, (next(channels)))  -- by several API processes
for at, frame in ipairs(frame_of) do
  for channel in pairs(is_shared and channels_of({waiters[at]}) or channels) do
    frames[channel] = frames[channel] or {}
    table.insert(frames[channel], frame)
  end
end
for keep_ms, size in pairs(sizes) do
  count_bytes(prefix, 'results', size, now + keep_ms, now)
end
for channel, replies in pairs(frames) do
  call_with(replies, 'RPUSH', channel)
  redis.call('PEXPIRE', channel, reply_ms)
end
remove_jobs(KEYS, prefix, group, removed)
if drained > 0 then
  redis.call('HINCRBYFLOAT', KEYS[1], 'drained', drained)
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[5], ARGV[4], ARGV[5])
end
return outcome
