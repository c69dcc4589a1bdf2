-- Become the owner of a durable request, or learn that it has one.
--
-- KEYS[1] request hash   ARGV[1] owner  [2] body hash  [3] route  [4] body  [5] now  [6] keep ms  [7] tenant  [8] deadline
-- [9] prefix  [10] items
-- Returns "mine" (new, or its owner crashed), "theirs", or "conflict" (same key, another body).
local known = redis.call('HMGET', KEYS[1], 'hash', 'state', 'owner', 'again')
if known[4] == '1' and known[1] == ARGV[2] then  -- it ended in a way that a retry may improve
  redis.call('DEL', KEYS[1], KEYS[1] .. ':events')
  known = {}
end
if known[1] then
  if known[1] ~= ARGV[2] then
    return 'conflict'
  end
  if known[2] ~= 'running' or redis.call('EXISTS', ARGV[9] .. 'api:' .. known[3]) == 1 then
    return 'theirs'
  end
end
if not known[1] then
  redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'route', ARGV[3], 'body', ARGV[4], 'created', ARGV[5], 'state', 'running',
    'tenant', ARGV[7], 'deadline', ARGV[8], 'items', ARGV[10])
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 'mine'
