-- A caller gives up on jobs. A job that nobody waits for any more is taken back; a worker that has begun it finds out
-- when it next renews its lease. (After book.lua.)
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag
-- ARGV[1] prefix  [2] reply channel  [3] group; then pairs: id, token
-- Answers how many jobs were taken back.
local prefix, taken = ARGV[1], 0
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local waiters = prefix .. 'waiters:' .. id
  redis.call('SREM', waiters, ARGV[2] .. '|' .. ARGV[at + 1])
  if redis.call('SCARD', waiters) == 0 then
    local fields = booked(prefix, id)
    if fields[1] then
      forget(KEYS, prefix, ARGV[3], id, fields)
      taken = taken + 1
    end
  end
end
return taken
