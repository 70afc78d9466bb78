-- Replace what an exchange reserved by the actual units, once, in the windows that held it. The rule is core/decision. The
-- kinds of limits are the files of arms/, which are put in at the line that says so; where a balance pays, wallet.lua comes
-- before this text.
--
-- KEYS  marks bucket | per limit: its counter, its slots, or the four keys of its wallet
-- ARGV  id | gone 0/1: no mark is needed, since it may have expired, or costs are 0 | limits: arm, and its words
-- Reply 1 where it was settled now, 0 where it had been, or nothing was reserved.

local call = redis.call
local id = ARGV[1]
local mark = call('HGET', KEYS[1], id)
if mark and string.sub(mark, 1, 1) == 's' then return 0 end
local reserved = ARGV[2] == '1'
if mark then reserved = tonumber(mark) % 64 == 0 end

local at, index = 3, 2
local paying = false

-- arms: functions

while reserved and ARGV[at] do
  local key, kind = KEYS[index], ARGV[at]
  index = index + 1
  -- arms: settle
end
if paying then repay(id) end
call('HSET', KEYS[1], id, 's' .. (mark or '0'))
call('PEXPIRE', KEYS[1], 180000)
return reserved and 1 or 0
