-- Keep a record for a while and within a sum of bytes: the oldest records go first.
--
-- KEYS[1] record  [2] zset of records by time  [3] hash of their sizes  [4] sum of the sizes  [5] hash of the budgets
-- ARGV[1] frame  [2] keep for ms  [3] now, Unix ms  [4] most bytes of all records
-- Answers 1 if the record is kept, 0 if it alone is too large.
local function forget(record)
  local size = redis.call('HGET', KEYS[3], record)
  if size then
    redis.call('HDEL', KEYS[3], record)
    redis.call('DECRBY', KEYS[4], size)
  end
  redis.call('ZREM', KEYS[2], record)
  redis.call('DEL', record)
end

local size, keep, now, most = #ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
most = math.min(most, tonumber(redis.call('HGET', KEYS[5], 'replays') or most))
forget(KEYS[1])
if size > most then
  return 0
end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - keep, 'LIMIT', 0, 100)) do
  forget(old)
end
while tonumber(redis.call('GET', KEYS[4]) or '0') + size > most do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)
  if not oldest[1] then
    redis.call('SET', KEYS[4], 0)
    break
  end
  forget(oldest[1])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', keep)
redis.call('ZADD', KEYS[2], now, KEYS[1])
redis.call('HSET', KEYS[3], KEYS[1], size)
redis.call('INCRBY', KEYS[4], size)
return 1
