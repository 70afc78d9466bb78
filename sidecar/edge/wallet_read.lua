-- A wallet as it stands at one instant, and from where to where its ledger goes then. The postings between do not change,
-- so they are read in pages afterwards: all at once would hold Redis up for longer than a request waits.
--
-- KEYS  wallet | ledger
-- Reply {now_us, the wallet's fields and values in a flat list, the first posting's place, the last's; "" of no ledger}

local call = redis.call
local time = call('TIME')
local first = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return { time[1] * 1000000 + time[2], call('HGETALL', KEYS[1]), first and first[1] or '', last and last[1] or '' }
