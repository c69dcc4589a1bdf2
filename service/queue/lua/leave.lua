-- A caller gives up on jobs. A job that nobody waits for any more is taken back; a worker that has begun it finds out
-- when it next renews its lease.
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag
-- ARGV[1] prefix  [2] reply channel  [3] group; then pairs: id, token
-- Answers how many jobs were taken back.
local prefix, taken = ARGV[1], 0
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local job, waiters = prefix .. 'job:' .. id, prefix .. 'waiters:' .. id
  redis.call('SREM', waiters, ARGV[2] .. '|' .. ARGV[at + 1])
  if redis.call('SCARD', waiters) == 0 then
    local fields = redis.call('HMGET', job, 'line', 'entry', 'cost', 'tag', 'tenant')
    if fields[1] then
      redis.call('XACK', prefix .. 'stream:' .. fields[1], ARGV[3], fields[2])
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
        redis.call('HSET', KEYS[1], 'cost', 0)
      else
        redis.call('HINCRBYFLOAT', KEYS[1], 'cost', -fields[3])
      end
      taken = taken + 1
    end
  end
end
return taken
