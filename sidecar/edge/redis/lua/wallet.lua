-- The functions of wallets, put before evaluate.lua or settle.lua where a balance is among the limits. The rules are
-- core/price and core/decision/wallet_charges.py, which has an example in figures, and a test holds this text to them.
-- Nothing is written before `keep`, and then all of it.
--
-- A wallet is four keys in a row in KEYS: wallet (hash), ledger (stream), holds (sorted set), held (hash).
-- A price is a word: kind (g graduated, v volume, k package), included, per, then up_to (0: open) and price by tier.
-- A hold is: charge, and for each priced counter its key, units, charge and price.

local call, floor, min, max = redis.call, math.floor, math.min, math.max
local MAX = 2251799813685248
local RELEASED, LEDGER, TRIMMED = 8, 10000, 1000
local UNREAD = 100000 -- postings that wait for their reader; beyond it the oldest go although they are not on the stream
local GRANT = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'
local wallets, moved, prices = {}, {}, {} -- by place of the first key; counters after releases; prices by word

local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function words(one, other)
  return other and string.format('%.0f %.0f', one, other) or string.format('%.0f', one)
end

-- R(quantity) in the wallet's scale, exact wherever it is below MAX: whole times of `per` apart from the rest, rounded half up.
local function charged(word, quantity)
  local price = prices[word]
  if not price then
    price = {}
    for part in string.gmatch(word, '[^,]+') do price[#price + 1] = tonumber(part) or part end
    prices[word] = price
  end
  local kind, per, units = price[1], price[3], quantity - price[2]
  if units <= 0 then return 0 end
  if kind == 'k' then return min(math.ceil(units / per) * price[5], MAX) end
  local whole, rest, below = 0, 0, 0
  for n = 4, #price, 2 do
    local top, each = price[n], price[n + 1]
    local last = top == 0 or units <= top
    if last then top = units end
    if last or kind == 'g' then
      local inside = top - below
      whole, rest = whole + floor(inside / per) * each, rest + inside % per * each
    end
    if last then break end
    if kind == 'g' then below = top end
  end
  return min(whole + floor((2 * rest + per) / (2 * per)), MAX)
end

local function post(wallet, kind, id, delta)
  if delta == 0 then return end
  wallet.balance = wallet.balance + delta
  local n = #wallet.postings
  wallet.postings[n + 1] = { kind, id, words(delta), words(wallet.balance) }
end

local function sooner(one, other)
  if one.expires ~= other.expires then return other.expires == 0 or one.expires ~= 0 and one.expires < other.expires end
end

local function burns_before(one, other)
  if one.priority ~= other.priority then return one.priority < other.priority end
  if one.expires ~= other.expires then return sooner(one, other) end
  if one.made ~= other.made then return one.made < other.made end
  return one.id < other.id
end

local function ends_before(one, other)
  if one.expires ~= other.expires then return sooner(one, other) end
  return one.id < other.id
end

-- Deduct `amount` from live grants, in order; returns the rest that no grant could pay. One grant mostly pays all: nothing is sorted.
local function burn(wallet, amount)
  while amount > 0 do
    local first
    for _, grant in ipairs(wallet.grants) do
      if grant.left > 0 and grant.starts <= wallet.now and (not first or burns_before(grant, first)) then first = grant end
    end
    if not first then break end
    local part = min(amount, first.left)
    first.left, first.touched, amount = first.left - part, true, amount - part
  end
  return amount
end

-- Give back to live grants, last used first; returns the rest that found no room.
local function refill(wallet, amount)
  while amount > 0 do
    local last
    for _, grant in ipairs(wallet.grants) do
      if grant.left < grant.amount and grant.starts <= wallet.now and (not last or burns_before(last, grant)) then
        last = grant
      end
    end
    if not last then break end
    local part = min(amount, last.amount - last.left)
    last.left, last.touched, amount = last.left + part, true, amount - part
  end
  return amount
end

local function move(wallet, kind, id, amount)
  if amount > 0 then
    local rest = burn(wallet, amount)
    local debt = min(wallet.debt + rest, MAX)
    post(wallet, kind, id, wallet.debt - debt - (amount - rest))
    wallet.debt = debt
  elseif amount < 0 then
    local paid = min(-amount, wallet.debt)
    wallet.debt = wallet.debt - paid
    post(wallet, kind, id, -amount)
    post(wallet, 'lost', id, -refill(wallet, -amount - paid)) -- its grant is gone
  end
end

-- Add the charges to posting `n`, the one that moved the balance; there is one although nothing may have moved.
local function explain(wallet, n, kind, id, charges)
  wallet.postings[n] = wallet.postings[n] or { kind, id, '0', words(wallet.balance) }
  wallet.postings[n][5] = charges
end

local function available(wallet)
  local left = -wallet.debt
  for _, grant in ipairs(wallet.grants) do
    if grant.starts <= wallet.now then left = left + grant.left end
  end
  return left
end

local function read(wallet)
  local stored = call('HGETALL', wallet.key)
  local ended = {}
  for n = 1, #stored, 2 do
    local name, value = stored[n], stored[n + 1]
    if string.sub(name, 1, 2) == 'g:' then
      local priority, starts, expires, amount, left, most, goes_on, made = string.match(value, GRANT)
      local grant = {
        id = string.sub(name, 3), priority = priority + 0, starts = starts + 0, expires = expires + 0,
        amount = amount + 0, left = left + 0, most = most + 0, goes_on = goes_on + 0, made = made + 0, touched = false,
      }
      local list = grant.expires > 0 and grant.expires <= wallet.now and ended or wallet.grants
      list[#list + 1] = grant
      wallet.balance = wallet.balance + grant.left
    elseif name == 'debt' then
      wallet.debt = value + 0
    elseif name == 'carried' then
      wallet.carried = value + 0
    elseif name == 'posted' then
      wallet.posted = string.match(value, '^%d+') + 0
    end
  end
  wallet.balance, wallet.owed = wallet.balance - wallet.debt, wallet.debt
  return ended
end

local function sweep(wallet, ended)
  if #ended > 1 then table.sort(ended, ends_before) end
  for _, grant in ipairs(ended) do
    local left = min(grant.left, grant.most)
    if left > 0 and grant.goes_on > wallet.now then
      post(wallet, 'rollover', grant.id, left - grant.left)
      grant.amount, grant.left, grant.expires = min(grant.amount, grant.most), left, grant.goes_on
      grant.most, grant.goes_on, grant.touched = 0, 0, true
      wallet.grants[#wallet.grants + 1] = grant
    else
      post(wallet, 'expire', grant.id, -grant.left)
      wallet.dropped[#wallet.dropped + 1] = 'g:' .. grant.id
    end
  end
  if wallet.debt > 0 then wallet.debt = burn(wallet, wallet.debt) end
end

-- Give back what is held by exchanges whose time has come, at the prices and from the counters that they were held at.
local function release(wallet)
  local due = call('ZRANGEBYSCORE', wallet.holds, '-inf', wallet.now, 'LIMIT', 0, RELEASED)
  if #due == 0 then return end
  local held = call('HMGET', wallet.held, unpack(due))
  for place, id in ipairs(due) do
    local back = 0
    for key, units, charge, price in string.gmatch(held[place] or '', ' (%S+) (%S+) (%S+) (%S+)') do
      local total = moved[key] or call('GET', key)
      if total then
        local left = max(0, total - units)
        back = back + charged(price, total + 0) - charged(price, left)
        moved[key], wallet.counters[key] = left, left
      else
        back = back + charge -- its window is long over
      end
    end
    local n = #wallet.postings + 1
    move(wallet, 'release', id, -back)
    local kept = (string.match(held[place] or '', '^%S+') or back) - back
    if kept ~= 0 then explain(wallet, n, 'release', id, '* 0 ' .. words(kept)) end -- its tier had changed
    wallet.released[place] = id
    if id == wallet.id then wallet.holding = false end
  end
end

local function open(at, id, now, releasing)
  local wallet = wallets[at]
  if wallet then return wallet end
  wallet = {
    key = KEYS[at], ledger = KEYS[at + 1], holds = KEYS[at + 2], held = KEYS[at + 3], id = id, now = now,
    grants = {}, debt = 0, balance = 0, carried = 0, -- as it is now
    postings = {}, counters = {}, released = {}, dropped = {}, -- what led there
    due = 0, parts = {}, charges = {}, explained = 0, -- what is asked of it; of its hold, the part that `charges` have
  }
  wallets[at] = wallet
  wallet.hold = call('HGET', wallet.held, id)
  wallet.holding = wallet.hold ~= false
  wallet.length = call('XLEN', wallet.ledger)
  sweep(wallet, read(wallet))
  if releasing then release(wallet) end
  return wallet
end

-- Sum up the oldest postings, and remove them; not while they wait for their reader, which is asked for at every hundredth.
local function trim(wallet)
  local waits = wallet.posted and wallet.length < UNREAD
  if waits and wallet.length % 100 >= #wallet.postings then return end
  local oldest = call('XRANGE', wallet.ledger, '-', '+', 'COUNT', TRIMMED)
  if waits and string.match(oldest[#oldest][1], '^%d+') + 0 >= wallet.posted then return end
  for _, posting in ipairs(oldest) do
    local fields = posting[2]
    for n = 1, #fields, 2 do
      if fields[n] == 'delta' then wallet.carried = wallet.carried + fields[n + 1] end
    end
  end
  call('HSET', wallet.key, 'carried', words(wallet.carried))
  call('XTRIM', wallet.ledger, 'MAXLEN', wallet.length + #wallet.postings - #oldest)
end

local function keep(wallet)
  local changed = {}
  for _, grant in ipairs(wallet.grants) do
    if grant.touched then
      local n = #changed
      changed[n + 1] = 'g:' .. grant.id
      changed[n + 2] = string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f', grant.priority, grant.starts, grant.expires,
        grant.amount, grant.left, grant.most, grant.goes_on, grant.made)
    end
  end
  if wallet.debt ~= wallet.owed then
    local n = #changed
    changed[n + 1], changed[n + 2] = 'debt', words(wallet.debt)
  end
  for key, total in pairs(wallet.counters) do call('SET', key, total, 'KEEPTTL') end
  if #wallet.released > 0 then
    call('HDEL', wallet.held, unpack(wallet.released))
    call('ZREM', wallet.holds, unpack(wallet.released))
  end
  if #changed > 0 then call('HSET', wallet.key, unpack(changed)) end
  if #wallet.dropped > 0 then call('HDEL', wallet.key, unpack(wallet.dropped)) end
  for _, posting in ipairs(wallet.postings) do
    local kind, id, delta, balance, charges = unpack(posting, 1, 5)
    if charges then
      call('XADD', wallet.ledger, '*', 'kind', kind, 'id', id, 'delta', delta, 'balance', balance, 'charges', charges)
    else
      call('XADD', wallet.ledger, '*', 'kind', kind, 'id', id, 'delta', delta, 'balance', balance)
    end
  end
  if #wallet.postings > 0 and wallet.length + #wallet.postings >= LEDGER then trim(wallet) end
end

-- What a priced counter that goes from `used` to `after` asks of its wallet.
local function ask(wallet, key, units, price, used, after)
  local charge = charged(price, after) - charged(price, used)
  wallet.due = wallet.due + charge
  wallet.parts[#wallet.parts + 1] = key .. ' ' .. words(units, charge) .. ' ' .. price
end

-- The charge that is held for a priced counter; it is asked for once.
local function held(wallet, key)
  for name, _, charge in string.gmatch(wallet.holding and wallet.hold or '', ' (%S+) (%S+) (%S+) (%S+)') do
    if name == key then
      wallet.explained = wallet.explained + charge
      return charge + 0
    end
  end
  return 0
end

-- All that an exchange cost of one meter, for the posting of its settle.
local function note(wallet, meter, units, amount)
  if units ~= 0 or amount ~= 0 then
    wallet.charges[#wallet.charges + 1] = meter .. ' ' .. words(units, amount)
  end
end

-- The second pass of a reserve: charge every wallet, or keep only what had expired. Before the counters are set.
local function pay(id, denied, leaves)
  for _, wallet in pairs(wallets) do
    if not denied then
      move(wallet, 'reserve', id, wallet.due)
      leaves[wallet.reply] = available(wallet) + wallet.amount
    end
    keep(wallet)
    if not denied and #wallet.parts > 0 then
      call('ZADD', wallet.holds, wallet.expires, id)
      call('HSET', wallet.held, id, words(wallet.due) .. ' ' .. table.concat(wallet.parts, ' '))
    end
  end
end

-- The end of a settle: charge what was used beyond what was held, or give back the rest; nothing is held any more.
local function repay(id)
  for _, wallet in pairs(wallets) do
    for n = 1, #wallet.parts, 3 do
      call('SET', wallet.parts[n], wallet.parts[n + 1], 'PXAT', wallet.parts[n + 2])
    end
    if wallet.holding then
      wallet.released[1] = id
      note(wallet, '*', 0, string.match(wallet.hold, '^%S+') - wallet.explained) -- held by a counter of another window
    end
    local n = #wallet.postings + 1
    move(wallet, 'settle', id, wallet.due)
    if #wallet.charges > 0 then explain(wallet, n, 'settle', id, table.concat(wallet.charges, ' ')) end
    keep(wallet)
  end
end

