-- A caller stops waiting for jobs. A job without waiters is cancelled; a worker that has begun it learns that when it
-- next renews its lease. (After accounting.lua.)
--
-- KEYS[1] load hash  [2] zset of live jobs  [3] hash of live jobs by tag  [4] hash of live jobs by tenant
-- ARGV[1] prefix  [2] reply channel  [3] group; then pairs: id, token
-- Returns how many jobs were cancelled.
local prefix, cancelled, seen = ARGV[1], {}, {}
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local waiters = prefix .. 'waiters:' .. id
  redis.call('SREM', waiters, ARGV[2] .. '|' .. ARGV[at + 1])
  if not seen[id] and redis.call('EXISTS', waiters) == 0 then
    seen[id] = true
    cancelled[#cancelled + 1] = read_job(prefix, id) or nil
  end
end
remove_jobs(KEYS, prefix, ARGV[3], cancelled)
return #cancelled
