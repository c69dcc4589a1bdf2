-- A worker registers the revision that it was configured with, and learns which one to serve.
--
-- KEYS[1] hash of what is active  [2] hash of known checkpoints
-- ARGV[1] its revision  [2] its path  [3] its base  [4] now, Unix ms  [5] the revision that it may replace, or ""
-- Returns revision, path and base of the active one.
local active = redis.call('HGET', KEYS[1], 'revision')
if not active or active == ARGV[5] then
  redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'path', ARGV[2], 'base', ARGV[3], 'since', ARGV[4])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HMGET', KEYS[1], 'revision', 'path', 'base')
