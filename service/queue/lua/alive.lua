-- An API process is alive.
--
-- KEYS[1] its key  ARGV[1] for how long, ms
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
