-- Priced limits: counts that a wallet pays for. The rule is core/decision/wallet_charges.py; wallet.lua has its functions.
--
-- reserve: start_us end_us expire_ms price, place of the wallet in KEYS
local opens, closes = ARGV[at + 4] + 0, ARGV[at + 5] + 0
if not force and (now < opens or now >= closes) then return { -1, now } end
local wallet = open(ARGV[at + 8] + 0, id, now, true) -- before the counter is read: a release may move it
counter = counter + 1
local key = KEYS[counter + 1]
local used = (moved[key] or stored[counter] or 0) + 0
remaining, reset = amount - used, closes - now
left, left_reset = remaining - cost, reset
if cost > 0 then
  local n, after = #sets, math.min(used + cost, 2251799813685248)
  sets[n + 1], sets[n + 2], sets[n + 3] = key, after, ARGV[at + 6]
  ask(wallet, key, cost, ARGV[at + 7], used, after)
end
at = at + 9
-- settle: more expire_ms cost price, place of the wallet in KEYS, meter
local more, base = ARGV[at + 1] + 0, ARGV[at + 3] + 0
local units, charge = more + base, 0
local wallet = open(ARGV[at + 5] + 0, id, clock(), false)
if not wallet.holding then more, base = units, 0 end -- the hold ran out, and was released
if more ~= 0 then
  local total = (call('GET', key) or base) + 0
  local after = math.max(0, math.min(total + more, 2251799813685248))
  charge = charged(ARGV[at + 4], after) - charged(ARGV[at + 4], total)
  wallet.due = wallet.due + charge
  local n = #wallet.parts
  wallet.parts[n + 1], wallet.parts[n + 2], wallet.parts[n + 3] = key, after, ARGV[at + 2]
end
note(wallet, ARGV[at + 6], units, charge + held(wallet, key))
paying = true
at = at + 7
