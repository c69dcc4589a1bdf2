-- A worker registers the revision that it was configured with, and learns which one to serve.
--
-- KEYS[1] hash of what is active  [2] hash of known checkpoints
-- ARGV[1] its revision  [2] its path  [3] its base  [4] now, Unix ms  [5] the revision that it may replace, or ""
--      [6] its epoch; one that replaces another gets the next
-- Returns revision, path, base and epoch of the active one.
local active = redis.call('HGET', KEYS[1], 'revision')
if not active or active == ARGV[5] then
  local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
  redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'path', ARGV[2], 'base', ARGV[3], 'since', ARGV[4],
    'epoch', active and epoch + 1 or ARGV[6])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HMGET', KEYS[1], 'revision', 'path', 'base', 'epoch')
