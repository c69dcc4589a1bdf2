-- End a job once: the first ending wins, every waiter is told, every trace but the answer goes.
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag
-- ARGV[1] prefix  [2] id  [3] reply frame  [4] cache for ms (0: never)  [5] keep the reply for ms  [6] group  [7] entry or ""
-- Answers 1 if this call ended the job, 0 if it had ended before.
local prefix, id = ARGV[1], ARGV[2]
local job, waiters = prefix .. 'job:' .. id, prefix .. 'waiters:' .. id
local fields = redis.call('HMGET', job, 'line', 'entry', 'cost', 'tag', 'tenant')
if not fields[1] or (ARGV[7] ~= '' and fields[2] ~= ARGV[7]) then
  return 0
end
redis.call('SET', prefix .. (ARGV[4] == '0' and 'last:' or 'cache:') .. id, ARGV[3],
  'PX', ARGV[4] == '0' and ARGV[5] or ARGV[4])
local told = {}
for _, waiter in ipairs(redis.call('SMEMBERS', waiters)) do
  local channel = string.match(waiter, '^(.*)|')
  if not told[channel] then
    told[channel] = true
    redis.call('RPUSH', channel, ARGV[3])
    redis.call('PEXPIRE', channel, ARGV[5])
  end
end
redis.call('XACK', prefix .. 'stream:' .. fields[1], ARGV[6], fields[2])
redis.call('XDEL', prefix .. 'stream:' .. fields[1], fields[2])
redis.call('HDEL', prefix .. 'seats:' .. fields[1], fields[2])
local tenant = fields[5] or ''
local waiting = prefix .. 'waiting:' .. fields[1] .. ':' .. tenant
if redis.call('ZREM', waiting, id) == 1 and redis.call('EXISTS', waiting) == 0 then  -- never begun, and its last
  local turns, clock = prefix .. 'turns:' .. fields[1], prefix .. 'clock:' .. fields[1]
  redis.call('HSET', clock, 'tenant:' .. tenant, redis.call('ZSCORE', turns, tenant))
  redis.call('ZREM', turns, tenant)
  if redis.call('EXISTS', turns) == 0 then
    redis.call('DEL', clock)
  end
end
redis.call('DEL', job, waiters)
redis.call('ZREM', KEYS[2], id)
if redis.call('HINCRBY', KEYS[3], fields[4] or '', -1) <= 0 then
  redis.call('HDEL', KEYS[3], fields[4] or '')
end
if redis.call('ZCARD', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'cost', 0)  -- floating-point dust does not gather
else
  redis.call('HINCRBYFLOAT', KEYS[1], 'cost', -fields[3])
end
if ARGV[7] ~= '' then  -- done by a worker; what only ran out of time says nothing about the rate
  redis.call('HINCRBYFLOAT', KEYS[1], 'drained', fields[3])
end
return 1
