-- What is left of every limit, for people: evaluate.lua, before this text, at a cost of 0. Nothing is written. The rule is
-- core/decision/peek.py.
--
-- Reply {0, now_us, 0, remaining, reset_us, ... of each limit, then of each wallet its place in KEYS, the amount that open
--       exchanges hold, and of its live grants those that expire next: what is left of them, and when (0, 0: none)}

if paying then
  for place, wallet in pairs(wallets) do
    local released, holding, left, expires = {}, 0, 0, 0
    for _, id in ipairs(wallet.released) do released[id] = true end
    local held = call('HGETALL', wallet.held)
    for n = 1, #held, 2 do
      if not released[held[n]] then holding = holding + string.match(held[n + 1], '^%S+') end
    end
    for _, grant in ipairs(wallet.grants) do
      if grant.left > 0 and grant.starts <= now and grant.expires > 0 then
        if expires == 0 or grant.expires < expires then left, expires = 0, grant.expires end
        if grant.expires == expires then left = left + grant.left end
      end
    end
    local n = #if_denied
    if_denied[n + 1], if_denied[n + 2], if_denied[n + 3], if_denied[n + 4] = place, holding, left, expires
  end
end
return if_denied
