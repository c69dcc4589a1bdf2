-- Take over what is active on another shard, unless this one has had a later activation.
--
-- KEYS[1] hash of what is active  [2] hash of known checkpoints
-- ARGV[1] revision  [2] path  [3] base  [4] now, Unix ms  [5] epoch
-- Returns 1, or 0 if nothing was to be done.
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or -1) >= tonumber(ARGV[5]) then
  return 0
end
redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'path', ARGV[2], 'base', ARGV[3], 'since', ARGV[4], 'epoch', ARGV[5])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
