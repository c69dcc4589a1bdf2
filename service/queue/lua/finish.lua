-- End a job once: the first ending wins, every waiter is told, every trace but the answer goes. (After book.lua.)
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag
-- ARGV[1] prefix  [2] id  [3] reply frame  [4] cache for ms (0: never)  [5] keep the reply for ms  [6] group  [7] entry or ""
-- [8] id to cache it under, where it is the answer to something else than was asked; "" or absent: its own
-- Answers 1 if this call ended the job, 0 if it had ended before.
local prefix, id = ARGV[1], ARGV[2]
local fields = booked(prefix, id)
if not fields[1] or (ARGV[7] ~= '' and fields[2] ~= ARGV[7]) then
  return 0
end
local known_as = (ARGV[8] or '') ~= '' and ARGV[8] or id
if ARGV[4] ~= '0' then
  redis.call('SET', prefix .. 'cache:' .. known_as, ARGV[3], 'PX', ARGV[4])
end
if ARGV[4] == '0' or known_as ~= id then
  redis.call('SET', prefix .. 'last:' .. id, ARGV[3], 'PX', ARGV[5])
end
local told = {}
for _, waiter in ipairs(redis.call('SMEMBERS', prefix .. 'waiters:' .. id)) do
  local channel = string.match(waiter, '^(.*)|')
  if not told[channel] then
    told[channel] = true
    redis.call('RPUSH', channel, ARGV[3])
    redis.call('PEXPIRE', channel, ARGV[5])
  end
end
forget(KEYS, prefix, ARGV[6], id, fields)
if ARGV[7] ~= '' then  -- done by a worker; what only ran out of time says nothing about the rate
  redis.call('HINCRBYFLOAT', KEYS[1], 'drained', fields[3])
end
return 1
