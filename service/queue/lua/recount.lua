-- Count the live jobs of each tenant again if the counts do not add up: processes of an older version do not keep them,
-- and meet those that do during a rollout. (After accounting.lua.)
--
-- KEYS[1] zset of live jobs  [2] hash of live jobs by tenant
-- ARGV[1] prefix
-- Answers 1 if it counted, 0 if there was no need.
local num, counts = 0, redis.call('HGETALL', KEYS[2])
for at = 1, #counts, 2 do
  if string.sub(counts[at], 1, #'jobs:') == 'jobs:' then
    num = num + tonumber(counts[at + 1])
  end
end
if num == redis.call('ZCARD', KEYS[1]) then
  return 0
end
redis.call('DEL', KEYS[2])
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local job = read_job(ARGV[1], id)
  if job then
    count_tenant(KEYS[2], job.tenant, 1, job.cost)
  else  -- it has ended, and only this list still has it
    redis.call('ZREM', KEYS[1], id)
  end
end
return 1
