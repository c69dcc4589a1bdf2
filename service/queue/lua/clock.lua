-- The clock that every host shares. Not a script: it is put before those that need it.

-- Unix time of Redis, in milliseconds.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
