-- Set a counter of a window to what its records say. While nodes run it is never lowered, since what is in flight has no
-- record yet.
--
-- KEYS  counter
-- ARGV  units | when it may be dropped, ms since 1970 | exact 0/1: lower it too
-- Reply the units before

local before = (redis.call('GET', KEYS[1]) or 0) + 0
local units = ARGV[1] + 0
if units > before or ARGV[3] == '1' and units < before then
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
end
return before
