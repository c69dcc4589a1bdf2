-- Become the owner of a durable request, or learn that it has one. (After bytes.lua.)
--
-- KEYS[1] request hash   ARGV[1] owner  [2] body hash  [3] route  [4] body  [5] now  [6] keep ms  [7] tenant  [8] deadline
-- [9] prefix  [10] items  [11] keep the answer for ms at least, where memory is short; "": as long as ever
-- Returns "mine" (new, or its owner crashed, or it runs although its owner has ended it, which a replica that took over
-- may have missed), "theirs", "conflict" (same key, another body), or what `no_room` says.
local OVERDUE_MS = 10000  -- so long after its deadline an owner that lives has ended a request
local known = redis.call('HMGET', KEYS[1], 'hash', 'state', 'owner', 'again', 'bytes', 'deadline')
local now = clock_ms()
local expiry = redis.call('PEXPIRETIME', KEYS[1])
if known[4] == '1' and known[1] == ARGV[2] then  -- it ended in a way that a retry may improve
  if known[5] then
    count_bytes(ARGV[9], 'answers', -known[5], expiry, now)
  end
  redis.call('DEL', KEYS[1], KEYS[1] .. ':events')
  known = {}
end
if known[1] then
  if known[1] ~= ARGV[2] then
    return 'conflict'
  end
  local owned = known[3] ~= ARGV[1] and now < tonumber(known[6] or '0') + OVERDUE_MS
    and redis.call('EXISTS', ARGV[9] .. 'api:' .. known[3]) == 1
  if known[2] ~= 'running' or owned then
    if ARGV[11] == '' and redis.call('HDEL', KEYS[1], 'least') == 1 and known[2] ~= 'running' then
      redis.call('PEXPIRE', KEYS[1], ARGV[6])  -- it was promised to this caller for so long
      recount(ARGV[9], 'answers', KEYS[1], expiry, known[5] or 0, now + ARGV[6], now)
    end
    return 'theirs'
  end
end
local size = known[5] or 6 * OVERHEAD + #ARGV[4]
if not known[1] then
  local full = no_room(ARGV[9], 'answers', size, now)
  if full then
    return full
  end
  redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'route', ARGV[3], 'body', ARGV[4], 'created', ARGV[5], 'state', 'running',
    'tenant', ARGV[7], 'deadline', ARGV[8], 'items', ARGV[10])
  if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[1], 'least', ARGV[11])
  end
elseif ARGV[11] == '' then
  redis.call('HDEL', KEYS[1], 'least')
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
recount(ARGV[9], 'answers', KEYS[1], expiry, size, now + ARGV[6], now)
return 'mine'
