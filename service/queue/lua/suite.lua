-- Store test suites, or keep those that are stored for longer. (After bytes.lua.)
--
-- KEYS suites  ARGV[1] prefix  [2] keep for ms  [3] 1: within their budget; then a frame per key
-- Returns {"stored"}, or what `no_room` says, with nothing stored.
local prefix, keep, now = ARGV[1], tonumber(ARGV[2]), clock_ms()
local new_bytes = 0
for at, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 0 then
    new_bytes = new_bytes + #key + #ARGV[3 + at] + OVERHEAD
  end
end
local full = ARGV[3] == '1' and new_bytes > 0 and no_room(prefix, 'suites', new_bytes, now)
if full then
  return full
end
for at, key in ipairs(KEYS) do
  keep_counted(prefix, 'suites', key, ARGV[3 + at], keep, now)
end
return {'stored'}
