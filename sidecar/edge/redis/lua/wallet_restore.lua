-- Put a wallet that was made from the stream in the place of a lost one. Its ledger begins with one posting that has the
-- balance; up to it everything is on the stream.
--
-- KEYS  wallet | ledger | holds | held | granted
-- ARGV  1: also in place of a wallet that is not empty | balance | number of fields and values of the wallet | these |
--       grant id, its figures, ...
-- Reply done | full: it is not empty | unread: its last postings are not on the stream yet

local call = redis.call
local replaces, balance, count = ARGV[1] == '1', ARGV[2], ARGV[3] + 0
local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local is_empty = not last
for _, field in ipairs(call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'g:' or field == 'debt' then is_empty = false end
end
if not is_empty and not replaces then return 'full' end
if last and call('HGET', KEYS[1], 'posted') ~= last[1] then return 'unread' end
call('DEL', KEYS[1], KEYS[3], KEYS[4], KEYS[5])
if last then call('XTRIM', KEYS[2], 'MAXLEN', 0) end -- the stream keeps its last id, so places never go back
local place = call('XADD', KEYS[2], '*', 'kind', 'rebuild', 'id', '-', 'delta', '0', 'balance', balance)
call('HSET', KEYS[1], 'carried', balance, 'posted', place, unpack(ARGV, 4, 3 + count))
for n = 4 + count, #ARGV, 2 do call('HSET', KEYS[5], ARGV[n], ARGV[n + 1]) end
return 'done'
