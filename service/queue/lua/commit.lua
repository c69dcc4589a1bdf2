-- Make a prepared revision the active one, in one step: from now on only its jobs are admitted.
--
-- KEYS[1] the activation request  [2] hash of what is active  [3] hash of known checkpoints
-- ARGV[1] the request's text  [2] revision  [3] path  [4] now, Unix ms  [5] its epoch
-- Returns 1, or 0 if the request has expired.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], 'revision', ARGV[2], 'path', ARGV[3], 'since', ARGV[4], 'epoch', ARGV[5])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[1])
return 1
