-- A worker is alive, and announces what it serves. (After clock.lua.)
--
-- KEYS[1] zset of workers by the end of their announcement  [2] hash of announcements
-- ARGV[1] worker  [2] for how long, ms  [3] announcement
redis.call('ZADD', KEYS[1], clock_ms() + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
