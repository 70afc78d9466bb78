-- Add a grant to a wallet, take what is left of one, or only look after what has expired, which goes before all else. Each
-- change of the balance is a posting of the ledger in this same step. The rule is core/price/wallet.py, and a test holds
-- this script to it. Redis's TIME is the clock; every figure is an integer below 2^51, so that doubles are exact.
--
-- KEYS  wallet (hash) | ledger (stream) | granted (hash: grant id -> its figures as they were given)
-- ARGV  grant id priority starts_us expires_us amount rollover_max rollover_until_us
--       void id
--       sweep
-- Reply {what was done, now_us, nano-units that came or went, the wallet's fields and values in a flat list}
--       done: made | there (the same before) | other (not the same) | past | many | full | void | gone | unknown | swept

local call = redis.call
local verb, id = ARGV[1], ARGV[2]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local PRIORITY, STARTS, EXPIRES, AMOUNT, LEFT, ROLL_MAX, ROLL_UNTIL, MADE = 1, 2, 3, 4, 5, 6, 7, 8
local GRANTS, CEILING = 64, 2251799813685248
local LEDGER, TRIMMED = 10000, 1000
local REMEMBERED, FORGOTTEN = 1000, 100

local function words(...)
  local text = {}
  for n, value in ipairs({ ... }) do text[n] = string.format('%.0f', value + 0) end -- never "-0"
  return table.concat(text, ' ')
end

local function figures(text)
  local found = {}
  for word in string.gmatch(text, '%-?%d+') do found[#found + 1] = word + 0 end
  return found
end

local grants, live, debt, balance = {}, 0, 0, 0
local stored = call('HGETALL', KEYS[1])
for n = 1, #stored, 2 do
  if string.sub(stored[n], 1, 2) == 'g:' then
    local grant = figures(stored[n + 1])
    grants[string.sub(stored[n], 3)] = grant
    live, balance = live + 1, balance + grant[LEFT]
  elseif stored[n] == 'debt' then
    debt = stored[n + 1] + 0
  end
end
balance = balance - debt

-- A grant that is taken out has a posting though nothing was left of it, so that a ledger can be played again.
local function post(kind, name, delta)
  balance = balance + delta
  call('XADD', KEYS[2], '*', 'kind', kind, 'id', name, 'delta', words(delta), 'balance', words(balance))
end

local function keep(name, grant)
  call('HSET', KEYS[1], 'g:' .. name, words(unpack(grant)))
end

local function drop(name)
  call('HDEL', KEYS[1], 'g:' .. name)
  grants[name], live = nil, live - 1
end

local function before(by)
  return function(one, other)
    for _, figure in ipairs(by) do
      local a, b = grants[one][figure], grants[other][figure]
      if figure == EXPIRES then a, b = a > 0 and a or math.huge, b > 0 and b or math.huge end
      if a ~= b then return a < b end
    end
    return one < other
  end
end

local function ordered(which, by)
  local found = {}
  for name, grant in pairs(grants) do
    if which(grant) then found[#found + 1] = name end
  end
  table.sort(found, before(by))
  return found
end

local function started(grant) return grant[STARTS] <= now end

local function pay_debt()
  if debt == 0 then return end
  for _, name in ipairs(ordered(started, { PRIORITY, EXPIRES, MADE })) do
    local grant = grants[name]
    local part = math.min(debt, grant[LEFT])
    if part > 0 then
      debt, grant[LEFT] = debt - part, grant[LEFT] - part
      keep(name, grant)
    end
  end
  call('HSET', KEYS[1], 'debt', words(debt))
end

local function sweep()
  local ended = ordered(function(grant) return grant[EXPIRES] > 0 and grant[EXPIRES] <= now end, { EXPIRES })
  for _, name in ipairs(ended) do
    local grant = grants[name]
    local left = math.min(grant[LEFT], grant[ROLL_MAX])
    if left > 0 and grant[ROLL_UNTIL] > now then
      local lost = grant[LEFT] - left
      grant[AMOUNT], grant[LEFT] = math.min(grant[AMOUNT], grant[ROLL_MAX]), left
      grant[EXPIRES], grant[ROLL_MAX], grant[ROLL_UNTIL] = grant[ROLL_UNTIL], 0, 0
      keep(name, grant)
      if lost > 0 then post('rollover', name, -lost) end
    else
      drop(name)
      post('expire', name, -grant[LEFT])
    end
  end
  pay_debt()
end

-- Room for `amount` more. Where there is none, what is used up goes, the first to burn first: only what requests under way
-- give back could still find it, and that is given to it last.
local function refused(amount)
  local sum, dropped = amount, {}
  for _, grant in pairs(grants) do sum = sum + grant[AMOUNT] end
  for _, name in ipairs(ordered(function(grant) return grant[LEFT] == 0 end, { PRIORITY, EXPIRES, MADE })) do
    if live - #dropped < GRANTS and sum <= CEILING then break end
    sum, dropped[#dropped + 1] = sum - grants[name][AMOUNT], name
  end
  if live - #dropped >= GRANTS then return 'many' end
  if sum > CEILING then return 'full' end
  for _, name in ipairs(dropped) do
    drop(name)
    post('expire', name, 0)
  end
end

local function remember(given)
  call('HSET', KEYS[3], id, given)
  if call('HLEN', KEYS[3]) <= REMEMBERED then return end
  local all, old = call('HGETALL', KEYS[3]), {}
  for n = 1, #all, 2 do
    if not grants[all[n]] then old[#old + 1] = { all[n], figures(all[n + 1])[1] } end
  end
  table.sort(old, function(one, other) return one[2] < other[2] end)
  for n = 1, math.min(FORGOTTEN, #old) do call('HDEL', KEYS[3], old[n][1]) end
end

-- Alerts are percents of what could be spent right after the newest grant that had started.
local function topped()
  if grants[id][STARTS] > now then return end
  local sum = -debt
  for _, grant in pairs(grants) do
    if grant[STARTS] <= now then sum = sum + grant[LEFT] end
  end
  call('HSET', KEYS[1], 'topped', words(now, math.max(sum, 0)) .. ' ' .. id)
end

local function make()
  local given = table.concat(ARGV, ' ', 3, 8)
  local known = call('HGET', KEYS[3], id)
  if known then return string.match(known, '^%d+ (.*)$') == given and 'there' or 'other', 0 end
  local expires, amount = ARGV[5] + 0, ARGV[6] + 0
  if expires > 0 and expires <= now then return 'past', 0 end
  local why = refused(amount)
  if why then return why, 0 end
  grants[id] = { ARGV[3] + 0, ARGV[4] + 0, expires, amount, amount, ARGV[7] + 0, ARGV[8] + 0, now }
  live = live + 1
  keep(id, grants[id])
  post('grant', id, amount)
  pay_debt()
  topped()
  remember(words(now) .. ' ' .. given)
  return 'made', amount
end

local function void()
  local grant = grants[id]
  if not grant then return call('HEXISTS', KEYS[3], id) == 1 and 'gone' or 'unknown', 0 end
  drop(id)
  post('void', id, -grant[LEFT])
  return 'void', grant[LEFT]
end

local function trim()
  if call('XLEN', KEYS[2]) < LEDGER then return end
  local sum = 0
  local oldest = call('XRANGE', KEYS[2], '-', '+', 'COUNT', TRIMMED)
  for _, posting in ipairs(oldest) do
    for n = 1, #posting[2], 2 do
      if posting[2][n] == 'delta' then sum = sum + posting[2][n + 1] end
    end
  end
  call('HINCRBY', KEYS[1], 'carried', words(sum))
  call('XTRIM', KEYS[2], 'MAXLEN', '=', call('XLEN', KEYS[2]) - #oldest)
end

sweep()
local verbs = { grant = make, void = void, sweep = function() return 'swept', 0 end }
local done, moved = verbs[verb]()
trim()
return { done, now, moved, call('HGETALL', KEYS[1]) }
