-- Two passes: look at every limit, then charge all of them or none. The rule is core/decision, and a test holds this
-- script to it. Redis's TIME is the clock. Every figure is an integer below 2^53, so that doubles are exact. Where a
-- balance is asked, balance.lua stands before this text: kinds p and b are of no use without it.
--
-- KEYS  marks bucket | per limit that has one: its counter (sliding: and the previous one) | slots per concurrency |
--       four of each purse
-- ARGV  force 0/1 | number of counters | limits | id, where a limit is: kind, role (0 denies, 1 may pass, 2 shadow),
--         cost, amount, then  q (quota, fixed):  start_us end_us expire_ms
--                             w (sliding):       start_us end_us expire_ms length_ms previous_ceiling
--                             r (rate):          cost_us cost_rest burst_us burst_rest step parts ceiling_us
--                             c (concurrency):   period_us
--                             p (priced):        start_us end_us expire_ms price, place of the purse in KEYS
--                             b (balance):       period_us, place of the purse in KEYS
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
local stands = { 0, now, 0 } -- the reply if nothing is charged
local leaves = { 0, now, 0 } -- the reply if all is charged
local sets, slots = {}, {} -- the second pass: key, value, expiry in ms; key, expiry in µs
local counter, slot, at, reply = 0, counters + 1, 3, 4
local paying = false

for limit = 1, 40 do
  local kind = ARGV[at]
  if at == #ARGV then break end
  local role, cost, amount = ARGV[at + 1], ARGV[at + 2] + 0, ARGV[at + 3] + 0
  local denies, remaining, reset, left, left_reset

  if kind == 'q' or kind == 'w' then
    local opens, closes = ARGV[at + 4] + 0, ARGV[at + 5] + 0
    if not force and (now < opens or now >= closes) then return { -1, now } end
    counter = counter + 1
    local used = (stored[counter] or 0) + 0
    remaining = amount - used
    reset = closes - now
    left_reset = reset
    if kind == 'q' then
      denies = cost > 0 and cost > remaining
    else
      local length, ceiling = ARGV[at + 7] + 0, ARGV[at + 8] + 0
      local before = math.min((stored[counter + 1] or 0) + 0, ceiling)
      remaining = remaining - math.ceil(before * (length - floor((now - opens) / 1000)) / length)
      denies = cost > 0 and cost > remaining
      if denies then
        local room, passes = amount - cost, length
        if room >= used and room >= 0 then
          passes = length - floor((room - used) * length / before)
        elseif room >= 0 then
          passes = length + length - floor(room * length / math.min(used, ceiling))
        end
        reset = opens + passes * 1000 - now
      end
    end
    left = remaining - cost
    if cost > 0 then
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3] = KEYS[counter + 1], math.min(used + cost, 2251799813685248), ARGV[at + 6]
    end
    if kind == 'w' then counter = counter + 1 end
    at = at + (kind == 'q' and 7 or 9)

  elseif kind == 'r' then
    local burst, burst_rest = ARGV[at + 6] + 0, ARGV[at + 7] + 0
    local step, parts, ceiling = ARGV[at + 8] + 0, ARGV[at + 9] + 0, ARGV[at + 10] + 0
    counter = counter + 1
    local held = stored[counter]
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
    remaining = floor(((burst - us) * parts + burst_rest - rest) / step)
    local full, full_rest = us + ARGV[at + 4], rest + ARGV[at + 5]
    if full_rest >= parts then full, full_rest = full + 1, full_rest - parts end
    denies = cost > 0 and (full > burst or full == burst and full_rest > burst_rest)
    if denies then
      reset = full - burst + (full_rest > burst_rest and 1 or 0)
      full, full_rest = burst, burst_rest -- who may pass a full one fills it no further
      if us > burst or us == burst and rest > burst_rest then full, full_rest = us, rest end
    else
      reset = us + (rest > 0 and 1 or 0)
    end
    left = floor(((burst - full) * parts + burst_rest - full_rest) / step)
    left_reset = full + (full_rest > 0 and 1 or 0)
    if cost > 0 then
      local n = #sets
      sets[n + 1], sets[n + 2] = KEYS[counter + 1], now + full
      if full_rest > 0 then sets[n + 2] = string.format('%.0f %.0f', now + full, full_rest) end
      sets[n + 3] = floor((now + full) / 1000) + 60000
    end
    at = at + 11

  elseif kind == 'p' then
    local opens, closes = ARGV[at + 4] + 0, ARGV[at + 5] + 0
    if not force and (now < opens or now >= closes) then return { -1, now } end
    local purse = open(ARGV[at + 8] + 0, id, now, true) -- before the counter is read: a release may move it
    counter = counter + 1
    local key = KEYS[counter + 1]
    local used = (moved[key] or stored[counter] or 0) + 0
    remaining, reset = amount - used, closes - now
    left, left_reset = remaining - cost, reset
    if cost > 0 then
      local n, after = #sets, math.min(used + cost, 2251799813685248)
      sets[n + 1], sets[n + 2], sets[n + 3] = key, after, ARGV[at + 6]
      ask(purse, key, cost, ARGV[at + 7], used, after)
    end
    at = at + 9

  elseif kind == 'b' then
    local purse = open(ARGV[at + 5] + 0, id, now, true)
    remaining, reset = available(purse) + amount, 0
    left, left_reset = remaining, 0
    denies = purse.due > 0 and purse.due > remaining
    purse.amount, purse.expires, purse.reply = amount, now + ARGV[at + 4], reply
    paying = true
    if purse.holding then mark = mark or '0' end -- its mark has gone, its hold has not
    at = at + 6

  else
    slot = slot + 1
    remaining = amount - call('ZCOUNT', KEYS[slot], now + 1, '+inf')
    denies = cost > 0 and cost > remaining
    reset = denies and 1000000 or 0
    left, left_reset = remaining - cost, 0
    if cost > 0 and not force then
      local n = #slots
      slots[n + 1], slots[n + 2] = KEYS[slot], now + ARGV[at + 4]
    end
    at = at + 5
  end

  if denies and role == '2' then
    mask = mask + bit
  elseif denies and role == '0' and denied == 0 then
    denied = limit
  end
  bit = bit + bit
  stands[reply], stands[reply + 1] = remaining, reset
  leaves[reply], leaves[reply + 1] = left, left_reset
  reply = reply + 2
end

if mark then
  local verdict = tonumber(mark)
  local settled = not verdict
  if settled then verdict = tonumber(string.sub(mark, 2)) end
  if settled or not force or verdict % 64 == 0 then
    stands[1], stands[3] = verdict % 64, floor(verdict / 64)
    return stands
  end
end

if force then denied, mask = 0, 0 end
if paying then pay(id, denied > 0, leaves) end
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
local answer = denied == 0 and leaves or stands
answer[1], answer[3] = denied, mask
return answer
