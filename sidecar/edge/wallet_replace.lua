-- Put a wallet that was made anew from its ledger in the place of the one that stands, if nothing was posted meanwhile.
--
-- KEYS  wallet | ledger
-- ARGV  the last posting that was played | field, value, ...
-- Reply 1 replaced, 0 not: read and play again

local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
