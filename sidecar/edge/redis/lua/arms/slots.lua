-- Slots of concurrency limits: the rule is core/limits/concurrency.py. A set of ids by the µs at which they expire.
--
-- reserve: period_us
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
-- settle:
call('ZREM', key, id)
at = at + 1
