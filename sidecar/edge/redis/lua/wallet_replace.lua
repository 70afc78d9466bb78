-- Replace a wallet by one that was rebuilt from its ledger, if nothing was posted meanwhile.
-- Fields that do not come from the ledger stay.
--
-- KEYS  wallet | ledger
-- ARGV  the last posting that was played | field, value, ...
-- Reply 1 replaced, 0 not: read and play again

local call = redis.call
local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= ARGV[1] then return 0 end
for _, field in ipairs(call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'g:' then call('HDEL', KEYS[1], field) end
end
call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
