-- A worker wants work: read new entries, if asked to, and see which of these and of the reclaimed ones are worth doing.
--
-- KEYS streams to read, highest lane first (none: read nothing)
-- ARGV[1] prefix  [2] now, Unix ms  [3] worker  [4] group  [5] how many to read at most
-- then, per entry that the worker holds already: stream, entry, id
-- Answers per entry {state, stream, entry, id, task, deadline, deliveries, queued}; state is "run" or "expired". What
-- is no job any more is dropped here.
local prefix, now, worker, group, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])

local entries = {}
for at = 6, #ARGV, 3 do
  entries[#entries + 1] = {ARGV[at], ARGV[at + 1], ARGV[at + 2]}
end
for _, stream in ipairs(KEYS) do
  if limit > 0 then
    local found = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', limit, 'STREAMS', stream, '>')
    for _, entry in ipairs(found and found[1][2] or {}) do
      entries[#entries + 1] = {stream, entry[1], entry[2][2]}
      limit = limit - 1
    end
  end
end

local answer = {}
for _, one in ipairs(entries) do
  local stream, entry, id = one[1], one[2], one[3]
  local job = prefix .. 'job:' .. id
  local fields = redis.call('HMGET', job, 'task', 'deadline', 'queued', 'entry')
  if not fields[1] or fields[4] ~= entry then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  else
    local deliveries = redis.call('HINCRBY', job, 'deliveries', 1)
    redis.call('HSET', job, 'state', 'running', 'worker', worker)
    local state = tonumber(fields[2]) < now and 'expired' or 'run'
    answer[#answer + 1] = {state, stream, entry, id, fields[1], fields[2], deliveries, fields[3]}
  end
end
return answer
