-- Counts, reads and removes what is stored of live jobs. Not a script: it is put before those that admit or end jobs.
--
-- What scripts do to several jobs they do with one command per key, not per job.

-- Call Redis with a fixed beginning and any number of further words, an even number of them at a time.
local function call_with(words, ...)
  for first = 1, #words, 1000 do
    local arguments = {...}
    for at = first, math.min(first + 999, #words) do
      arguments[#arguments + 1] = words[at]
    end
    redis.call(unpack(arguments))
  end
end

-- What ending a job needs, or nil if there is no such job.
local function read_job(prefix, id)
  local fields = redis.call('HMGET', prefix .. 'job:' .. id, 'line', 'entry', 'cost', 'tag', 'tenant', 'state')
  return fields[1] and {id = id, line = fields[1], entry = fields[2], cost = tonumber(fields[3]), tag = fields[4] or '',
    tenant = fields[5] or '', begun = fields[6] == 'running'}
end

-- Count live jobs of a tenant: `num` and `cost` are negative for jobs that end. Who has none has no fields.
local function count_tenant(tenants, tenant, num, cost)
  if redis.call('HINCRBY', tenants, 'jobs:' .. tenant, num) <= 0 then
    redis.call('HDEL', tenants, 'jobs:' .. tenant, 'cost:' .. tenant)
  else
    redis.call('HINCRBYFLOAT', tenants, 'cost:' .. tenant, cost)
  end
end

-- Take jobs out of their lanes: their entries, their seats and, of those that have not begun, their turns.
local function leave_lines(prefix, group, jobs)
  local entries, waiting = {}, {}  -- by lane; by key of what waits
  for _, job in ipairs(jobs) do
    entries[job.line] = entries[job.line] or {}
    table.insert(entries[job.line], job.entry)
    if not job.begun then
      local key = prefix .. 'waiting:' .. job.line .. ':' .. job.tenant
      waiting[key] = waiting[key] or {line = job.line, tenant = job.tenant, ids = {}}
      table.insert(waiting[key].ids, job.id)
    end
  end
  for line, line_entries in pairs(entries) do
    call_with(line_entries, 'XACK', prefix .. 'stream:' .. line, group)
    call_with(line_entries, 'XDEL', prefix .. 'stream:' .. line)
    call_with(line_entries, 'HDEL', prefix .. 'seats:' .. line)
  end
  for key, left in pairs(waiting) do
    local virtual_times, virtual_clock = prefix .. 'turns:' .. left.line, prefix .. 'clock:' .. left.line
    call_with(left.ids, 'ZREM', key)
    local time = redis.call('EXISTS', key) == 0 and redis.call('ZSCORE', virtual_times, left.tenant)
    if time then  -- its tenant's last
      redis.call('HSET', virtual_clock, 'tenant:' .. left.tenant, time)
      redis.call('ZREM', virtual_times, left.tenant)
      if redis.call('EXISTS', virtual_times) == 0 then
        redis.call('DEL', virtual_clock)
      end
    end
  end
end

-- Remove jobs of one queue from every list. `keys`: load hash, zset of live jobs, hashes of live jobs by tag and by tenant.
local function remove_jobs(keys, prefix, group, jobs)
  if #jobs == 0 then
    return
  end
  leave_lines(prefix, group, jobs)
  local names, ids, cost, tags, tenants = {}, {}, 0, {}, {}
  for at, job in ipairs(jobs) do
    names[2 * at - 1], names[2 * at] = prefix .. 'job:' .. job.id, prefix .. 'waiters:' .. job.id
    ids[at] = job.id
    cost = cost + job.cost
    tags[job.tag] = (tags[job.tag] or 0) + 1
    local counted = tenants[job.tenant] or {0, 0}
    tenants[job.tenant] = {counted[1] + 1, counted[2] + job.cost}
  end
  call_with(names, 'DEL')
  call_with(ids, 'ZREM', keys[2])
  for tag, num in pairs(tags) do
    if redis.call('HINCRBY', keys[3], tag, -num) <= 0 then
      redis.call('HDEL', keys[3], tag)
    end
  end
  if redis.call('ZCARD', keys[2]) == 0 then
    redis.call('HSET', keys[1], 'cost', 0)  -- rounding errors do not add up
    redis.call('DEL', keys[4])
  else
    for tenant, counted in pairs(tenants) do
      count_tenant(keys[4], tenant, -counted[1], -counted[2])
    end
    redis.call('HINCRBYFLOAT', keys[1], 'cost', -cost)
  end
end
