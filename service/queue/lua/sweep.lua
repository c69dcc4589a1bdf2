-- Remove what workers left behind that crashed: announcements that ran out some time ago, and consumers without pending
-- entries whose announcement is gone. A consumer that is in use after all comes back with its next read. (After clock.lua.)
--
-- KEYS[1] zset of workers by the end of their announcement  [2] hash of announcements; then hashes of what workers have
-- begun, then streams
-- ARGV[1] group  [2] for how long an announcement that ran out is kept, ms  [3] number of hashes of what was begun
-- Returns how many consumers were removed.
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock_ms() - ARGV[2])) do
  redis.call('ZREM', KEYS[1], worker)
  redis.call('HDEL', KEYS[2], worker)
  for at = 3, 2 + ARGV[3] do
    redis.call('HDEL', KEYS[at], worker)
  end
end
local removed = 0
for at = 3 + ARGV[3], #KEYS do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[at], ARGV[1])
  for _, fields in ipairs(consumers) do  -- none, if Redis restarted empty and the group does not exist yet
    local consumer = {}
    for field = 1, #fields, 2 do
      consumer[fields[field]] = fields[field + 1]
    end
    if consumer['pending'] == 0 and not redis.call('ZSCORE', KEYS[1], consumer['name']) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[at], ARGV[1], consumer['name'])
      removed = removed + 1
    end
  end
end
return removed
