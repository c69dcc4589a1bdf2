-- Make a prepared revision the active one, in one step: what is admitted from now on is of it.
--
-- KEYS[1] the order to prepare it  [2] hash of what is active  [3] hash of known checkpoints
-- ARGV[1] the order's text  [2] revision  [3] path  [4] now, Unix ms
-- Answers 1, or 0 if the order is no longer in force.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], 'revision', ARGV[2], 'path', ARGV[3], 'since', ARGV[4])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[1])
return 1
