-- Rates: the rule is core/limits/rate.py. A value is the theoretical arrival time in µs, and a rest in 1/parts µs.
--
-- functions: how far the arrival time lies ahead of now
local function backlog(stored, now, parts, ceiling)
  if not stored then return 0, 0 end
  local us, rest = tonumber(stored), 0
  if not us then
    us, rest = string.match(stored, '^(%d+) (%d+)$')
    us, rest = us + 0, rest + 0
  end
  us = us - now
  if us < 0 then return 0, 0 end
  return math.min(us, ceiling), math.min(rest, parts - 1)
end
-- reserve: cost_us cost_rest burst_us burst_rest step parts ceiling_us
local burst, burst_rest = ARGV[at + 6] + 0, ARGV[at + 7] + 0
local step, parts, ceiling = ARGV[at + 8] + 0, ARGV[at + 9] + 0, ARGV[at + 10] + 0
counter = counter + 1
local us, rest = backlog(stored[counter], now, parts, ceiling)
remaining = floor(((burst - us) * parts + burst_rest - rest) / step)
local full, full_rest = us + ARGV[at + 4], rest + ARGV[at + 5]
if full_rest >= parts then full, full_rest = full + 1, full_rest - parts end
denies = cost > 0 and (full > burst or full == burst and full_rest > burst_rest)
if denies then
  reset = full - burst + (full_rest > burst_rest and 1 or 0)
  if not force or role ~= '0' then -- a request that may pass a full one fills it no further
    full, full_rest = burst, burst_rest
    if us > burst or us == burst and rest > burst_rest then full, full_rest = us, rest end
  end
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
-- settle: moved_us moved_rest parts ceiling_us
local moved, moved_rest = ARGV[at + 1] + 0, ARGV[at + 2] + 0
if moved ~= 0 or moved_rest ~= 0 then
  local parts, ceiling = ARGV[at + 3] + 0, ARGV[at + 4] + 0
  local time = call('TIME')
  local now = time[1] * 1000000 + time[2]
  local us, rest = backlog(call('GET', key), now, parts, ceiling)
  local to, to_rest = us + moved, rest + moved_rest
  if to_rest >= parts then to, to_rest = to + 1, to_rest - parts end
  to = now + math.min(to, ceiling) -- before now it is the same as an empty one
  local value = to_rest > 0 and string.format('%.0f %.0f', to, to_rest) or to
  call('SET', key, value, 'PXAT', math.floor(to / 1000) + 60000)
end
at = at + 5
