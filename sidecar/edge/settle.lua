-- Replace what an exchange reserved by the truth, once, in the windows that held it. The rule is core/decision.
-- Where a balance pays, balance.lua stands before this text: kinds p and b are of no use without it.
--
-- KEYS  marks bucket | per limit: its counter, its slots, or the four keys of its purse
-- ARGV  id | gone 0/1: the mark is so old that it may have expired | limits, where a limit is:
--         q (window, quota): owed expire_ms      r (rate): moved_us moved_rest parts ceiling_us      c: nothing
--         p (priced): owed expire_ms cost price, place of the purse in KEYS                         b: nothing
-- Reply 1 where it was settled now, 0 where it had been, or nothing was reserved.

local call = redis.call
local id = ARGV[1]
local mark = call('HGET', KEYS[1], id)
if mark and string.sub(mark, 1, 1) == 's' then return 0 end
local reserved = ARGV[2] == '1'
if mark then reserved = tonumber(mark) % 64 == 0 end

local at, index = 3, 2
local paying = false
while reserved and ARGV[at] do
  local key, kind = KEYS[index], ARGV[at]
  index = index + 1
  if kind == 'c' then
    call('ZREM', key, id)
    at = at + 1

  elseif kind == 'q' then
    local owed = ARGV[at + 1] + 0
    if owed ~= 0 then
      local used = math.max(0, math.min((call('GET', key) or 0) + owed, 2251799813685248))
      call('SET', key, used, 'PXAT', ARGV[at + 2])
    end
    at = at + 3

  elseif kind == 'p' then
    local owed, base = ARGV[at + 1] + 0, ARGV[at + 3] + 0
    local purse = open(ARGV[at + 5] + 0, id, clock(), false)
    if not purse.holding then owed, base = owed + base, 0 end -- the hold ran out, and was given back
    if owed ~= 0 then
      local total = (call('GET', key) or base) + 0
      local after = math.max(0, math.min(total + owed, 2251799813685248))
      purse.due = purse.due + charged(ARGV[at + 4], after) - charged(ARGV[at + 4], total)
      local n = #purse.parts
      purse.parts[n + 1], purse.parts[n + 2], purse.parts[n + 3] = key, after, ARGV[at + 2]
    end
    paying = true
    at = at + 6

  elseif kind == 'b' then
    index = index + 3
    at = at + 1

  else
    local moved, moved_rest = ARGV[at + 1] + 0, ARGV[at + 2] + 0
    if moved ~= 0 or moved_rest ~= 0 then
      local parts, ceiling = ARGV[at + 3] + 0, ARGV[at + 4] + 0
      local time = call('TIME')
      local now = time[1] * 1000000 + time[2]
      local held = call('GET', key)
      local us, rest = 0, 0
      if held then
        us = tonumber(held)
        if not us then
          us, rest = string.match(held, '^(%d+) (%d+)$')
          us, rest = us + 0, rest + 0
        end
        us = us - now
        if us < 0 then
          us, rest = 0, 0
        else
          us, rest = math.min(us, ceiling), math.min(rest, parts - 1)
        end
      end
      local to, to_rest = us + moved, rest + moved_rest
      if to_rest >= parts then to, to_rest = to + 1, to_rest - parts end
      to = now + math.min(to, ceiling) -- before now it is as good as none
      local value = to_rest > 0 and string.format('%.0f %.0f', to, to_rest) or to
      call('SET', key, value, 'PXAT', math.floor(to / 1000) + 60000)
    end
    at = at + 5
  end
end
if paying then repay(id) end
call('HSET', KEYS[1], id, 's' .. (mark or '0'))
call('PEXPIRE', KEYS[1], 180000)
return reserved and 1 or 0
