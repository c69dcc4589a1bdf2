-- Counts the bytes of keys by family. Not a script: it is put before those that write such keys. (After clock.lua.)
--
-- `bytes:{family}` is a hash: `sum`, the bytes per bucket of time in which their keys expire, and `next`, the first
-- bucket that has not passed. `budgets` is a hash of the most bytes per family (memory.lua); without one: no bound.
local BUCKET_MS = 10000
local OVERHEAD = 160  -- what Redis needs per key beside name and value

-- The bytes of a family that have not expired.
local function live_bytes(prefix, family, now)
  local counts, passed = prefix .. 'bytes:' .. family, math.floor(now / BUCKET_MS)
  local known = redis.call('HMGET', counts, 'sum', 'next')
  local sum, first = tonumber(known[1] or '0'), tonumber(known[2] or passed + 1)
  if first <= passed then
    local expired = {}
    for bucket = first, passed do
      local size = redis.call('HGET', counts, bucket)
      if size then
        expired[#expired + 1] = bucket
        sum = sum - size
      end
    end
    redis.call('HSET', counts, 'sum', sum, 'next', passed + 1)
    for _, bucket in ipairs(expired) do
      redis.call('HDEL', counts, bucket)
    end
  end
  return math.max(0, sum)
end

-- Count bytes of a family until `expiry`, Unix ms; negative: count so many no longer.
local function count_bytes(prefix, family, size, expiry, now)
  local counts, passed = prefix .. 'bytes:' .. family, math.floor(now / BUCKET_MS)
  local bucket = math.floor(expiry / BUCKET_MS) + 1
  if bucket <= passed then
    return
  end
  redis.call('HINCRBY', counts, 'sum', size)
  if redis.call('HINCRBY', counts, bucket, size) == size then  -- a new bucket
    redis.call('HSETNX', counts, 'next', passed + 1)
    local left = expiry - now + 2 * BUCKET_MS
    if redis.call('PTTL', counts) < left then
      redis.call('PEXPIRE', counts, left)
    end
  end
end

-- Store a string, counted. One that is replaced stays counted until it would have expired: an executor may not read it.
local function set_counted(prefix, family, key, value, keep_ms, now)
  redis.call('SET', key, value, 'PX', keep_ms)
  count_bytes(prefix, family, #key + #value + OVERHEAD, now + keep_ms, now)
end

-- Store a string that is always the same under its key, or keep the one that is there for longer, counted.
local function keep_counted(prefix, family, key, value, keep_ms, now)
  local left = redis.call('PTTL', key)
  if left == -2 then
    set_counted(prefix, family, key, value, keep_ms, now)
  elseif left < keep_ms then
    local size = #key + #value + OVERHEAD
    count_bytes(prefix, family, -size, now + left, now)
    redis.call('PEXPIRE', key, keep_ms)
    count_bytes(prefix, family, size, now + keep_ms, now)
  end
end

-- Count a hash, whose field `bytes` is what it counted for until `old_expiry`, as `size` until `expiry`.
local function recount(prefix, family, key, old_expiry, size, expiry, now)
  local old = redis.call('HGET', key, 'bytes')
  if old then
    count_bytes(prefix, family, -old, old_expiry, now)
  end
  redis.call('HSET', key, 'bytes', size)
  count_bytes(prefix, family, tonumber(size), expiry, now)
end

-- A family's bytes as a share of its budget: 0 without a budget, infinity with a budget of 0.
local function fill_of(prefix, family, now)
  local budget = tonumber(redis.call('HGET', prefix .. 'budgets', family) or nil)
  if not budget then
    return 0
  end
  return budget > 0 and live_bytes(prefix, family, now) / budget or math.huge
end

-- How long to keep something new, ms: `keep` in an empty family, from half its budget on only `least`. So half of
-- the budget is always there for what is kept for `least`.
local function shortened(keep, least, fill)
  least = math.min(keep, least)
  return math.floor(least + (keep - least) * math.max(0, 1 - 2 * fill))
end

-- nil if `size` more bytes fit into a family, else {'no_room', family, its bytes, its budget, ms until they may fit}.
local function no_room(prefix, family, size, now)
  local budget = tonumber(redis.call('HGET', prefix .. 'budgets', family) or nil)
  local live = budget and live_bytes(prefix, family, now)
  if not budget or live + size <= budget then
    return nil
  end
  local left, wait_ms = live, 0
  for bucket = math.floor(now / BUCKET_MS) + 1, math.floor(now / BUCKET_MS) + 6 do
    left = left - tonumber(redis.call('HGET', prefix .. 'bytes:' .. family, bucket) or '0')
    wait_ms = bucket * BUCKET_MS - now
    if left + size <= budget then
      break
    end
  end
  return {'no_room', family, live, budget, wait_ms}
end
