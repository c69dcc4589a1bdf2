-- A worker has read or reclaimed entries: which of them are still worth doing?
--
-- ARGV[1] prefix  [2] now, Unix ms  [3] worker; then pairs: id, entry
-- Answers per pair {state, task, deadline, deliveries, queued, stream}; state is "run", "expired" or "gone".
local prefix, now = ARGV[1], tonumber(ARGV[2])
local answer = {}
for at = 4, #ARGV, 2 do
  local job = prefix .. 'job:' .. ARGV[at]
  local fields = redis.call('HMGET', job, 'task', 'deadline', 'queued', 'stream', 'entry')
  if not fields[1] or fields[5] ~= ARGV[at + 1] then
    answer[#answer + 1] = {'gone'}
  else
    local deliveries = redis.call('HINCRBY', job, 'deliveries', 1)
    redis.call('HSET', job, 'state', 'running', 'worker', ARGV[3])
    local state = tonumber(fields[2]) < now and 'expired' or 'run'
    answer[#answer + 1] = {state, fields[1], fields[2], deliveries, fields[3], fields[4]}
  end
end
return answer
