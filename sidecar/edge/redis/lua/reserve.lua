-- Decide on a request: two passes, first every limit is evaluated, then all are charged or none. The rule is core/decision,
-- and a test holds this script to it. The kinds of limits are the files of arms/, which are put in at the line that says
-- so; where a balance is among the limits, wallet.lua comes before this text.
--
-- Redis's TIME is the clock. Every figure is an integer below 2^53, so that doubles are exact. An id has one verdict, kept
-- in its mark for 180 s: a command that is repeated returns the first verdict and charges nothing.
--
--   limits: a rate of burst 10 (10 left) and a quota of 1,000 (999 used); costs 2 and 2
--     first pass    rate: passes, 10 left, 8 if charged      quota: 2 > 1, denies
--     second pass   nothing is charged; the mark is 2 (1 + the place of the quota); reply {2, now, 0, 10, 0, 1, ...}
--   the same with the quota in stage shadow
--     second pass   both are charged; the mark is 128 (64 x the bit of the quota); reply {0, now, 2, 8, ...}
--
-- KEYS  marks bucket | per count or rate: its counter (sliding: and the previous one) | slots per concurrency |
--       four of each wallet
-- ARGV  force 0/1 | number of counters | limits | id, where a limit is: arm, role (0 denies, 1 may pass, 2 shadow),
--         cost, amount, and the words of its arm
-- Reply {0 or 1 + the limit that denied, now_us, shadow mask, remaining, reset_us, remaining, reset_us, ...}
--       {-1, now_us} where a window is not that of now: ask again with the right one.

local call, floor = redis.call, math.floor
local id = ARGV[#ARGV]
local force = ARGV[1] == '1'
local counters = ARGV[2] + 0
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local mark = call('HGET', KEYS[1], id)
local stored = counters > 0 and call('MGET', unpack(KEYS, 2, counters + 1)) or {}

local denied, mask, bit = 0, 0, 1
local if_denied = { 0, now, 0 } -- the reply if nothing is charged
local if_allowed = { 0, now, 0 } -- the reply if all is charged
local sets, slots = {}, {} -- the second pass: key, value, expiry in ms; key, expiry in µs
local counter, slot, at, reply = 0, counters + 1, 3, 4
local paying = false

-- arms: functions

for limit = 1, 40 do
  local kind = ARGV[at]
  if at == #ARGV then break end
  local role, cost, amount = ARGV[at + 1], ARGV[at + 2] + 0, ARGV[at + 3] + 0
  local denies, remaining, reset, left, left_reset

  -- arms: reserve

  if denies and role == '2' then
    mask = mask + bit
  elseif denies and role == '0' and denied == 0 then
    denied = limit
  end
  bit = bit + bit
  if_denied[reply], if_denied[reply + 1] = remaining, reset
  if_allowed[reply], if_allowed[reply + 1] = left, left_reset
  reply = reply + 2
end

if mark then
  local verdict = tonumber(mark)
  local settled = not verdict
  if settled then verdict = tonumber(string.sub(mark, 2)) end
  if settled or not force or verdict % 64 == 0 then
    if_denied[1], if_denied[3] = verdict % 64, floor(verdict / 64)
    return if_denied
  end
end

if force then denied, mask = 0, 0 end
if paying then pay(id, denied > 0, if_allowed) end
if denied == 0 then
  for n = 1, #sets, 3 do
    call('SET', sets[n], sets[n + 1], 'PXAT', sets[n + 2])
  end
  for n = 1, #slots, 2 do
    call('ZREMRANGEBYSCORE', slots[n], '-inf', now)
    call('ZADD', slots[n], slots[n + 1], id)
    call('PEXPIREAT', slots[n], floor(slots[n + 1] / 1000) + 60000)
  end
end
call('HSET', KEYS[1], id, denied + 64 * mask)
call('PEXPIRE', KEYS[1], 180000)
local answer = denied == 0 and if_allowed or if_denied
answer[1], answer[3] = denied, mask
return answer
