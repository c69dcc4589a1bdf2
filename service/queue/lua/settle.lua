-- End a durable request once: the first call decides. (After bytes.lua.)
--
-- KEYS[1] request hash  [2] its events  ARGV[1] state  [2] keep ms  [3] prefix; then pairs of field and value to store
-- Returns the state that it is in. A request that Redis has lost is written again, so that its result can be read.
--
-- What only a running request needs goes: its body, unless a retry may start from it, and, where a field `order` has
-- their ids, its events. `least` is a field of requests whose caller waits: such an answer is kept for less long where
-- memory is short, and for no longer than that if the caller will send the request again.
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'running' then
  return state
end
local prefix, now, keep = ARGV[3], clock_ms(), tonumber(ARGV[2])
local old_expiry = redis.call('PEXPIRETIME', KEYS[1])
redis.call('HSET', KEYS[1], 'state', ARGV[1], unpack(ARGV, 4))
local fields = redis.call('HMGET', KEYS[1], 'least', 'again', 'order')
local least = fields[1] and math.min(keep, tonumber(fields[1]))
if least then
  keep = fields[2] == '1' and least or shortened(keep, least, fill_of(prefix, 'answers', now))
end
if least or fields[2] ~= '1' then
  redis.call('HDEL', KEYS[1], 'body')
end
local event = redis.call('XADD', KEYS[2], '*', 'end', ARGV[1])
local keep_events = keep
if fields[3] then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', 1)
  keep_events = math.min(keep, 10000)  -- for who reads it now; a stream of one event takes 5 kB
end
redis.call('PEXPIRE', KEYS[2], keep_events)
redis.call('HSET', KEYS[1], 'end', event)
redis.call('PEXPIRE', KEYS[1], keep)
local size = 6 * OVERHEAD + redis.call('HSTRLEN', KEYS[1], 'body')
for at = 5, #ARGV, 2 do
  size = size + #ARGV[at]
end
if not fields[3] and redis.call('XLEN', KEYS[2]) > 1 then
  size = size + redis.call('MEMORY', 'USAGE', KEYS[2])
end
recount(prefix, 'answers', KEYS[1], old_expiry, size, now + keep, now)
return ARGV[1]
