-- Counts in fixed windows: the rule is core/limits/counted.py.
--
-- reserve: start_us end_us expire_ms
local opens, closes = ARGV[at + 4] + 0, ARGV[at + 5] + 0
if not force and (now < opens or now >= closes) then return { -1, now } end
counter = counter + 1
local used = (stored[counter] or 0) + 0
remaining, reset = amount - used, closes - now
left, left_reset = remaining - cost, reset
denies = cost > 0 and cost > remaining
if cost > 0 then
  local n = #sets
  sets[n + 1], sets[n + 2], sets[n + 3] = KEYS[counter + 1], math.min(used + cost, 2251799813685248), ARGV[at + 6]
end
at = at + 7
-- settle: more expire_ms
local more = ARGV[at + 1] + 0
if more ~= 0 then
  local used = math.max(0, math.min((call('GET', key) or 0) + more, 2251799813685248))
  call('SET', key, used, 'PXAT', ARGV[at + 2])
end
at = at + 3
