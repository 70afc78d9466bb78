-- Balances: the rule is core/decision/wallet_charges.py; wallet.lua has its functions. It comes after what it pays for.
--
-- reserve: period_us, place of the wallet in KEYS
local wallet = open(ARGV[at + 5] + 0, id, now, true)
remaining, reset = available(wallet) + amount, 0
left, left_reset = remaining, 0
denies = wallet.due > 0 and wallet.due > remaining
wallet.amount, wallet.expires, wallet.reply = amount, now + ARGV[at + 4], reply
paying = true
if wallet.holding then mark = mark or '0' end -- its mark has gone, its hold has not
at = at + 6
-- settle:
index = index + 3
at = at + 1
