-- Read a wallet as it stands at one instant: what it holds, what is held by exchanges under way, and the ledger's end.
--
-- KEYS  wallet | ledger | held | granted
-- ARGV  how many postings, the last ones; 0 none
-- Reply {now_us, wallet, held, granted, postings from the oldest}: the hashes as flat lists, a posting as {id, fields}

local call = redis.call
local time = call('TIME')
local count = ARGV[1] + 0
local postings = count > 0 and call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', count) or {}
local oldest_first = {}
for n = #postings, 1, -1 do oldest_first[#oldest_first + 1] = postings[n] end
return {
  time[1] * 1000000 + time[2],
  call('HGETALL', KEYS[1]),
  call('HGETALL', KEYS[3]),
  call('HGETALL', KEYS[4]),
  oldest_first,
}
