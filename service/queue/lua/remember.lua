-- Remember scores, for less long the fuller their family is, and not at all once it is full. (After bytes.lua.)
--
-- KEYS their keys  ARGV[1] prefix  [2] keep for ms  [3] keep for ms, at least; then a frame per key
-- Returns for how long they are kept, ms.
local prefix, now = ARGV[1], clock_ms()
local fill = fill_of(prefix, 'scores', now)
if fill >= 1 then
  return 0
end
local keep = shortened(tonumber(ARGV[2]), tonumber(ARGV[3]), fill)
for at, key in ipairs(KEYS) do
  keep_counted(prefix, 'scores', key, ARGV[3 + at], keep, now)
end
return keep
