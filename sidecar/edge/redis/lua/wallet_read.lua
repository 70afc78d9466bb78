-- A wallet at one instant, with the holds of open exchanges, and the ids of the first and last posting of its ledger. The postings between do not change,
-- so they are read in pages afterwards: all at once would hold Redis up for longer than a request waits.
--
-- KEYS  wallet | ledger | held
-- Reply {now_us, the wallet's fields and values in a flat list, those of held, the first posting's place, the last's; ""
--       of no ledger}

local call = redis.call
local time = call('TIME')
local first = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {
  time[1] * 1000000 + time[2], call('HGETALL', KEYS[1]), call('HGETALL', KEYS[3]),
  first and first[1] or '', last and last[1] or '',
}
