-- Add a grant to a wallet, void the rest of one, or only remove expired grants, which is done before all else. It follows
-- wallet.lua, which deducts, posts and stores, so a grant and a request change a wallet by one and the same rule.
--
-- KEYS  wallet | ledger | holds | held | granted (hash: grant id -> when it was made, and its figures as they were given)
-- ARGV  grant id priority starts_us expires_us amount rollover_max rollover_until_us
--       void id
--       sweep
-- Reply {what was done, now_us, the amount that came or went, the wallet's fields and values in a flat list}
--       done: made | there (the same before) | other (not the same) | past | many | full | void | gone | unknown | swept

local GRANTS, REMEMBERED, FORGOTTEN = 64, 1000, 100
local GRANTED, id = KEYS[5], ARGV[2]
local now = clock()
local wallet = open(1, '', now, true)

-- A grant that is taken out has a posting though nothing may be left of it, so that a ledger can be played again.
local function take(place, kind)
  local grant = table.remove(wallet.grants, place)
  wallet.dropped[#wallet.dropped + 1] = 'g:' .. grant.id
  wallet.balance = wallet.balance - grant.left
  wallet.postings[#wallet.postings + 1] = { kind, grant.id, words(0 - grant.left), words(wallet.balance) }
  return grant.left
end

-- Room for `amount` more. Where there is too little, used-up grants are removed in their order of use: only units that open
-- requests give back could still go to them, and those go to the first of them last.
local function refused(amount)
  local sum, used = amount, {}
  table.sort(wallet.grants, burns_before)
  for place, grant in ipairs(wallet.grants) do
    sum = sum + grant.amount
    if grant.left == 0 then used[#used + 1] = place end
  end
  local gone = 0
  while gone < #used and (#wallet.grants - gone >= GRANTS or sum > MAX) do
    gone = gone + 1
    sum = sum - wallet.grants[used[gone]].amount
  end
  if #wallet.grants - gone >= GRANTS then return 'many' end
  if sum > MAX then return 'full' end
  for n = gone, 1, -1 do take(used[n], 'expire') end
end

local function remember(given)
  call('HSET', GRANTED, id, words(now) .. ' ' .. given)
  if call('HLEN', GRANTED) <= REMEMBERED then return end
  local here, all, old = {}, call('HGETALL', GRANTED), {}
  for _, grant in ipairs(wallet.grants) do here[grant.id] = true end
  for n = 1, #all, 2 do
    if not here[all[n]] then old[#old + 1] = { all[n], string.match(all[n + 1], '^%d+') + 0 } end
  end
  table.sort(old, function(one, other) return one[2] < other[2] end)
  for n = 1, min(FORGOTTEN, #old) do call('HDEL', GRANTED, old[n][1]) end
end

local function make()
  local given = table.concat(ARGV, ' ', 3, 8)
  local known = call('HGET', GRANTED, id)
  if known then return string.match(known, '^%d+ (.*)$') == given and 'there' or 'other', 0 end
  local starts, expires, amount = ARGV[4] + 0, ARGV[5] + 0, ARGV[6] + 0
  if expires > 0 and expires <= now then return 'past', 0 end
  local why = refused(amount)
  if why then return why, 0 end
  wallet.grants[#wallet.grants + 1] = {
    id = id, priority = ARGV[3] + 0, starts = starts, expires = expires, amount = amount, left = amount,
    most = ARGV[7] + 0, goes_on = ARGV[8] + 0, made = now, touched = true,
  }
  post(wallet, 'grant', id, amount)
  wallet.debt = burn(wallet, wallet.debt) -- all others were asked when they were read
  -- Alerts are percents of what could be spent right after the newest grant that had started.
  if starts <= now then call('HSET', wallet.key, 'topped', words(now, max(available(wallet), 0)) .. ' ' .. id) end
  remember(given)
  return 'made', amount
end

local function void()
  for place, grant in ipairs(wallet.grants) do
    if grant.id == id then return 'void', take(place, 'void') end
  end
  return call('HEXISTS', GRANTED, id) == 1 and 'gone' or 'unknown', 0
end

local verbs = { grant = make, void = void, sweep = function() return 'swept', 0 end }
local done, moved = verbs[ARGV[1]]()
keep(wallet)
return { done, now, moved, call('HGETALL', wallet.key) }
