-- Evaluate every limit of a request, and change nothing: the first pass of reserve.lua, and all of peek.lua, which come
-- behind this text. The kinds of limits are the files of arms/, which are put in at the line that says so; where a balance
-- is among the limits, wallet.lua comes before this text.
--
-- Redis's TIME is the clock. Every figure is an integer below 2^53, so that doubles are exact.
--
-- KEYS  marks bucket | per count or rate: its counter (sliding: and the previous one) | slots per concurrency |
--       four of each wallet
-- ARGV  force 0/1 | number of counters | limits | id, where a limit is: arm, role (0 denies, 1 may pass, 2 shadow),
--         cost, amount, and the words of its arm
-- Reply {-1, now_us} where a window is not that of now: ask again with the right one.

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
