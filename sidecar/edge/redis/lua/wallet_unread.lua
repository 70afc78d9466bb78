-- The postings of a wallet's ledger that are not on the stream yet, for one reader at a time: it writes them into its
-- journal, and says with its next call how far it is. A reader that is killed has its turn for as long as it claimed it;
-- then another one reads the same postings again.
--
-- KEYS  wallet | ledger | granted
-- ARGV  the reader | how long it claims the wallet, ms | postings | the last posting that is in its journal, or ''
-- Reply {0}: another reader has it; {1}: all are read; {2, postings, the figures of each of them that is a grant, or ''}

local call = redis.call
local reader, claimed_ms, count, done = ARGV[1], ARGV[2] + 0, ARGV[3], ARGV[4]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local posted, claim = unpack(call('HMGET', KEYS[1], 'posted', 'reader'))
local owner, until_ms = string.match(claim or '', '^(%S+) (%d+)$')

local function is_later(one, other)
  local ms, seq = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return ms + 0 > other_ms + 0 end
  return seq + 0 > other_seq + 0
end

if done ~= '' and (not posted or is_later(done, posted)) then
  posted = done
  call('HSET', KEYS[1], 'posted', posted)
end
if owner and owner ~= reader and until_ms + 0 > now then return { 0 } end
local after = '-'
if posted then
  local ms, seq = string.match(posted, '^(%d+)-(%d+)$')
  after = ms .. '-' .. string.format('%.0f', seq + 1)
end
local postings = call('XRANGE', KEYS[2], after, '+', 'COUNT', count)
if #postings == 0 then
  call('HDEL', KEYS[1], 'reader')
  return { 1 }
end
call('HSET', KEYS[1], 'reader', reader .. ' ' .. string.format('%.0f', now + claimed_ms))
local given = {}
for n, posting in ipairs(postings) do
  local fields = posting[2]
  given[n] = fields[2] == 'grant' and call('HGET', KEYS[3], fields[4]) or ''
end
return { 2, postings, given }
