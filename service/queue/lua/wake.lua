-- Wake the event reader of an API process.
--
-- KEYS[1] the stream that it reads beside the others  ARGV[1] keep for ms
redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'wake', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
