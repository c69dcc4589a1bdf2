-- End a durable request once: the first call decides.
--
-- KEYS[1] request hash  [2] its events  ARGV[1] state  [2] keep ms; then pairs of field and value to store
-- Returns the state that it is in. A request that Redis has lost is written again, so that its result can be read.
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'running' then
  return state
end
redis.call('HSET', KEYS[1], 'state', ARGV[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'end', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return ARGV[1]
