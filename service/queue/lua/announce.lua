-- A worker is alive, and announces what it serves.
--
-- KEYS[1] zset of workers by the end of their announcement  [2] hash of announcements
-- ARGV[1] worker  [2] until, Unix ms  [3] announcement
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
