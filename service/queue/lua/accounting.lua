-- Counts, reads and removes what is stored of a live job. Not a script: it is put before those that admit or end jobs.

-- What ending a job needs: line, entry, cost, tag, tenant; all nil if there is no such job.
local function job_fields(prefix, id)
  return redis.call('HMGET', prefix .. 'job:' .. id, 'line', 'entry', 'cost', 'tag', 'tenant')
end

-- Count live jobs of a tenant: `num` and `cost` are negative for a job that ends. Who has none has no fields.
local function count_tenant(tenants, tenant, num, cost)
  if redis.call('HINCRBY', tenants, 'jobs:' .. tenant, num) <= 0 then
    redis.call('HDEL', tenants, 'jobs:' .. tenant, 'cost:' .. tenant)
  else
    redis.call('HINCRBYFLOAT', tenants, 'cost:' .. tenant, cost)
  end
end

-- Take a job out of its lane: its entry, its seat and, if it has not begun, its turn.
local function leave_line(prefix, group, id, line, entry, tenant)
  redis.call('XACK', prefix .. 'stream:' .. line, group, entry)
  redis.call('XDEL', prefix .. 'stream:' .. line, entry)
  redis.call('HDEL', prefix .. 'seats:' .. line, entry)
  local waiting = prefix .. 'waiting:' .. line .. ':' .. tenant
  if redis.call('ZREM', waiting, id) == 1 and redis.call('EXISTS', waiting) == 0 then  -- its tenant's last, never begun
    local virtual_times, virtual_clock = prefix .. 'turns:' .. line, prefix .. 'clock:' .. line
    redis.call('HSET', virtual_clock, 'tenant:' .. tenant, redis.call('ZSCORE', virtual_times, tenant))
    redis.call('ZREM', virtual_times, tenant)
    if redis.call('EXISTS', virtual_times) == 0 then
      redis.call('DEL', virtual_clock)
    end
  end
end

-- Remove a job from every list. `keys`: load hash, zset of live jobs, hashes of live jobs by tag and by tenant.
local function remove_job(keys, prefix, group, id, fields)
  local tag, tenant = fields[4] or '', fields[5] or ''
  leave_line(prefix, group, id, fields[1], fields[2], tenant)
  redis.call('DEL', prefix .. 'job:' .. id, prefix .. 'waiters:' .. id)
  redis.call('ZREM', keys[2], id)
  if redis.call('HINCRBY', keys[3], tag, -1) <= 0 then
    redis.call('HDEL', keys[3], tag)
  end
  count_tenant(keys[4], tenant, -1, -fields[3])
  if redis.call('ZCARD', keys[2]) == 0 then
    redis.call('HSET', keys[1], 'cost', 0)  -- rounding errors do not add up
    redis.call('DEL', keys[4])
  else
    redis.call('HINCRBYFLOAT', keys[1], 'cost', -fields[3])
  end
end
