-- What has become of the jobs that a worker holds.
--
-- ARGV[1] prefix; then pairs: id, entry
-- Returns, per pair, the job's deadline in Unix ms, which a later waiter may have moved; 0 if the job has ended.
local answer = {}
for at = 2, #ARGV, 2 do
  local fields = redis.call('HMGET', ARGV[1] .. 'job:' .. ARGV[at], 'entry', 'deadline')
  answer[#answer + 1] = fields[1] == ARGV[at + 1] and tonumber(fields[2]) or 0
end
return answer
