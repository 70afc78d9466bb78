-- Put off the expiry of what open exchanges hold in one set. The rule is core/decision/extension.py, and a test holds this
-- text to it. Redis's TIME is the clock.
--
-- KEYS  the set: slots of a concurrency limit, or holds of a wallet | for each exchange its marks bucket
-- ARGV  slots or holds | µs from now | for each exchange: id, gone 0/1: its mark may have expired

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local until_us = now + ARGV[2]
local put = false
for n = 2, #KEYS do
  local id, is_open = ARGV[n + n - 1], ARGV[n + n] == '1'
  if ARGV[1] == 'holds' then
    call('ZADD', KEYS[1], 'XX', until_us, id) -- one that was released is given back, and stays so
  else
    local mark = call('HGET', KEYS[n], id)
    if mark then is_open = string.sub(mark, 1, 1) ~= 's' and mark % 64 == 0 end
    if is_open then
      if not put then call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) end
      call('ZADD', KEYS[1], until_us, id)
      put = true
    end
  end
end
if put then call('PEXPIREAT', KEYS[1], math.floor(until_us / 1000) + 60000) end
return 0
