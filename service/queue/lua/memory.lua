-- Write the budgets of the families, and count their live bytes. (After bytes.lua.)
--
-- ARGV[1] prefix; then pairs: family, budget in bytes
-- Answers the live bytes of each.
local prefix, now, live = ARGV[1], clock_ms(), {}
for at = 2, #ARGV, 2 do
  local family, budget = ARGV[at], ARGV[at + 1]
  if redis.call('HGET', prefix .. 'budgets', family) ~= budget then
    redis.call('HSET', prefix .. 'budgets', family, budget)
  end
  if family == 'replays' then  -- counted by keep.lua
    live[#live + 1] = tonumber(redis.call('GET', prefix .. 'replays:bytes') or '0')
  else
    live[#live + 1] = live_bytes(prefix, family, now)
  end
end
return live
