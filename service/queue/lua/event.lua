-- Add a finished item to the events of a durable request. (After bytes.lua.)
--
-- KEYS[1] request hash  [2] its events  ARGV[1] prefix  [2] item  [3] keep for ms
-- Returns the event's id.
local event = redis.call('XADD', KEYS[2], '*', 'item', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local expiry = redis.call('PEXPIRETIME', KEYS[1])
local counted = redis.call('HGET', KEYS[1], 'bytes')
if counted and expiry > 0 then
  local now = clock_ms()
  recount(ARGV[1], 'answers', KEYS[1], expiry, counted + #ARGV[2] + 64, expiry, now)
end
return event
