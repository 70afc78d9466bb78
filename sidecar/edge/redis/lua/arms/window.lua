-- Sliding windows: the rule is core/limits/window.py. Its counter is settled as a count.
--
-- reserve: start_us end_us expire_ms length_ms previous_ceiling
local opens, closes = ARGV[at + 4] + 0, ARGV[at + 5] + 0
if not force and (now < opens or now >= closes) then return { -1, now } end
counter = counter + 2
local used, length, ceiling = (stored[counter - 1] or 0) + 0, ARGV[at + 7] + 0, ARGV[at + 8] + 0
local before = math.min((stored[counter] or 0) + 0, ceiling)
remaining = amount - used - math.ceil(before * (length - floor((now - opens) / 1000)) / length)
reset = closes - now
left, left_reset = remaining - cost, reset
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
if cost > 0 then
  local n = #sets
  sets[n + 1], sets[n + 2], sets[n + 3] = KEYS[counter], math.min(used + cost, 2251799813685248), ARGV[at + 6]
end
at = at + 9
