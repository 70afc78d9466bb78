-- What a balance pays, put before reserve.lua or settle.lua where one is asked. The rules are core/price and
-- core/decision/purses.py, and a test holds this text to them. Nothing is written before `keep`, and then all of it.
--
-- A purse is four keys in a row in KEYS: wallet (hash), ledger (stream), holds (sorted set), held (hash).
-- A price is a word: kind (g graduated, v volume, k package), included, per, then up_to (0: open) and nanos by tier.
-- A hold is: charge, and for each priced counter its key, units, charge and price.

local call, floor, min, max = redis.call, math.floor, math.min, math.max
local MAX = 2251799813685248
local RELEASED, LEDGER, TRIMMED = 8, 10000, 1000
local GRANT = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'
local purses, moved, prices = {}, {}, {} -- by place of the first key; counters after releases; prices by word

local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function words(one, other)
  return other and string.format('%.0f %.0f', one, other) or string.format('%.0f', one)
end

-- R(quantity) in nano-units, exact wherever it is below MAX: whole times of `per` apart from the rest, rounded half up.
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
    local top, nanos = price[n], price[n + 1]
    local last = top == 0 or units <= top
    if last then top = units end
    if last or kind == 'g' then
      local inside = top - below
      whole, rest = whole + floor(inside / per) * nanos, rest + inside % per * nanos
    end
    if last then break end
    if kind == 'g' then below = top end
  end
  return min(whole + floor((2 * rest + per) / (2 * per)), MAX)
end

local function post(purse, kind, id, delta)
  if delta == 0 then return end
  purse.balance = purse.balance + delta
  local n = #purse.postings
  purse.postings[n + 1] = { kind, id, words(delta), words(purse.balance) }
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

-- Burn `nanos` from what is live, in order; the rest is what no grant could pay. One grant mostly pays all: none is sorted.
local function burn(purse, nanos)
  while nanos > 0 do
    local first
    for _, grant in ipairs(purse.grants) do
      if grant.left > 0 and grant.starts <= purse.now and (not first or burns_before(grant, first)) then first = grant end
    end
    if not first then break end
    local part = min(nanos, first.left)
    first.left, first.touched, nanos = first.left - part, true, nanos - part
  end
  return nanos
end

-- Give back to what is live, last burnt first; the rest is what found no room.
local function refill(purse, nanos)
  while nanos > 0 do
    local last
    for _, grant in ipairs(purse.grants) do
      if grant.left < grant.amount and grant.starts <= purse.now and (not last or burns_before(last, grant)) then
        last = grant
      end
    end
    if not last then break end
    local part = min(nanos, last.amount - last.left)
    last.left, last.touched, nanos = last.left + part, true, nanos - part
  end
  return nanos
end

local function move(purse, kind, id, nanos)
  if nanos > 0 then
    local rest = burn(purse, nanos)
    local debt = min(purse.debt + rest, MAX)
    post(purse, kind, id, purse.debt - debt - (nanos - rest))
    purse.debt = debt
  elseif nanos < 0 then
    local paid = min(-nanos, purse.debt)
    purse.debt = purse.debt - paid
    post(purse, kind, id, -nanos)
    post(purse, 'expire', id, -refill(purse, -nanos - paid)) -- its grant is gone
  end
end

local function available(purse)
  local left = -purse.debt
  for _, grant in ipairs(purse.grants) do
    if grant.starts <= purse.now then left = left + grant.left end
  end
  return left
end

local function read(purse)
  local stored = call('HGETALL', purse.wallet)
  local ended = {}
  for n = 1, #stored, 2 do
    local name, value = stored[n], stored[n + 1]
    if string.sub(name, 1, 2) == 'g:' then
      local priority, starts, expires, amount, left, most, goes_on, made = string.match(value, GRANT)
      local grant = {
        id = string.sub(name, 3), priority = priority + 0, starts = starts + 0, expires = expires + 0,
        amount = amount + 0, left = left + 0, most = most + 0, goes_on = goes_on + 0, made = made + 0, touched = false,
      }
      local list = grant.expires > 0 and grant.expires <= purse.now and ended or purse.grants
      list[#list + 1] = grant
      purse.balance = purse.balance + grant.left
    elseif name == 'debt' then
      purse.debt = value + 0
    elseif name == 'carried' then
      purse.carried = value + 0
    end
  end
  purse.balance, purse.owed = purse.balance - purse.debt, purse.debt
  return ended
end

local function sweep(purse, ended)
  if #ended > 1 then table.sort(ended, ends_before) end
  for _, grant in ipairs(ended) do
    local left = min(grant.left, grant.most)
    if left > 0 and grant.goes_on > purse.now then
      post(purse, 'rollover', grant.id, left - grant.left)
      grant.amount, grant.left, grant.expires = min(grant.amount, grant.most), left, grant.goes_on
      grant.most, grant.goes_on, grant.touched = 0, 0, true
      purse.grants[#purse.grants + 1] = grant
    else
      post(purse, 'expire', grant.id, -grant.left)
      purse.dropped[#purse.dropped + 1] = 'g:' .. grant.id
    end
  end
  if purse.debt > 0 then purse.debt = burn(purse, purse.debt) end
end

-- Give back what is held by exchanges whose time has come, at the prices and from the counters that they were held at.
local function release(purse)
  local due = call('ZRANGEBYSCORE', purse.holds, '-inf', purse.now, 'LIMIT', 0, RELEASED)
  if #due == 0 then return end
  local held = call('HMGET', purse.held, unpack(due))
  for n, id in ipairs(due) do
    local back = 0
    for key, units, charge, price in string.gmatch(held[n] or '', ' (%S+) (%S+) (%S+) (%S+)') do
      local total = moved[key] or call('GET', key)
      if total then
        local left = max(0, total - units)
        back = back + charged(price, total + 0) - charged(price, left)
        moved[key], purse.counters[key] = left, left
      else
        back = back + charge -- its window is long over
      end
    end
    move(purse, 'release', id, -back)
    purse.released[n] = id
    if id == purse.id then purse.holding = false end
  end
end

local function open(at, id, now, releasing)
  local purse = purses[at]
  if purse then return purse end
  purse = {
    wallet = KEYS[at], ledger = KEYS[at + 1], holds = KEYS[at + 2], held = KEYS[at + 3], id = id, now = now,
    grants = {}, debt = 0, balance = 0, carried = 0, -- as it is now
    postings = {}, counters = {}, released = {}, dropped = {}, -- what led there
    due = 0, parts = {}, -- what is asked of it
  }
  purses[at] = purse
  purse.holding = call('HEXISTS', purse.held, id) == 1
  purse.length = call('XLEN', purse.ledger)
  sweep(purse, read(purse))
  if releasing then release(purse) end
  return purse
end

local function trim(purse)
  local oldest = call('XRANGE', purse.ledger, '-', '+', 'COUNT', TRIMMED)
  for _, posting in ipairs(oldest) do
    local fields = posting[2]
    for n = 1, #fields, 2 do
      if fields[n] == 'delta' then purse.carried = purse.carried + fields[n + 1] end
    end
  end
  call('HSET', purse.wallet, 'carried', words(purse.carried))
  call('XTRIM', purse.ledger, 'MAXLEN', purse.length + #purse.postings - #oldest)
end

local function keep(purse)
  local changed = {}
  for _, grant in ipairs(purse.grants) do
    if grant.touched then
      local n = #changed
      changed[n + 1] = 'g:' .. grant.id
      changed[n + 2] = string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f', grant.priority, grant.starts, grant.expires,
        grant.amount, grant.left, grant.most, grant.goes_on, grant.made)
    end
  end
  if purse.debt ~= purse.owed then
    local n = #changed
    changed[n + 1], changed[n + 2] = 'debt', words(purse.debt)
  end
  for key, total in pairs(purse.counters) do call('SET', key, total, 'KEEPTTL') end
  if #purse.released > 0 then
    call('HDEL', purse.held, unpack(purse.released))
    call('ZREM', purse.holds, unpack(purse.released))
  end
  if #changed > 0 then call('HSET', purse.wallet, unpack(changed)) end
  if #purse.dropped > 0 then call('HDEL', purse.wallet, unpack(purse.dropped)) end
  for _, posting in ipairs(purse.postings) do
    call('XADD', purse.ledger, '*', 'kind', posting[1], 'id', posting[2], 'delta', posting[3], 'balance', posting[4])
  end
  if #purse.postings > 0 and purse.length + #purse.postings >= LEDGER then trim(purse) end
end

-- What a priced counter that goes from `used` to `after` asks of its purse.
local function ask(purse, key, units, price, used, after)
  local charge = charged(price, after) - charged(price, used)
  purse.due = purse.due + charge
  purse.parts[#purse.parts + 1] = key .. ' ' .. words(units, charge) .. ' ' .. price
end

-- The second pass of a reserve: charge every purse, or keep only what had expired. Before the counters are set.
local function pay(id, denied, leaves)
  for _, purse in pairs(purses) do
    if not denied then
      move(purse, 'reserve', id, purse.due)
      leaves[purse.reply] = available(purse) + purse.amount
    end
    keep(purse)
    if not denied and #purse.parts > 0 then
      call('ZADD', purse.holds, purse.expires, id)
      call('HSET', purse.held, id, words(purse.due) .. ' ' .. table.concat(purse.parts, ' '))
    end
  end
end

-- The end of a settle: charge what was used beyond what was held, or give back the rest; nothing is held any more.
local function repay(id)
  for _, purse in pairs(purses) do
    for n = 1, #purse.parts, 3 do
      call('SET', purse.parts[n], purse.parts[n + 1], 'PXAT', purse.parts[n + 2])
    end
    if purse.holding then purse.released[1] = id end
    move(purse, 'settle', id, purse.due)
    keep(purse)
  end
end

