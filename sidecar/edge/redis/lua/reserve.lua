-- Decide on a request: two passes, first every limit is evaluated (evaluate.lua, before this text), then all are charged or
-- none. The rule is core/decision, and a test holds this script to it.
--
-- An id has one verdict, kept in its mark for 180 s: a command that is repeated returns the first verdict and charges
-- nothing.
--
--   limits: a rate of burst 10 (10 left) and a quota of 1,000 (999 used); costs 2 and 2
--     first pass    rate: passes, 10 left, 8 if charged      quota: 2 > 1, denies
--     second pass   nothing is charged; the mark is 2 (1 + the place of the quota); reply {2, now, 0, 10, 0, 1, ...}
--   the same with the quota in stage shadow
--     second pass   both are charged; the mark is 128 (64 x the bit of the quota); reply {0, now, 2, 8, ...}
--
-- Reply {0 or 1 + the limit that denied, now_us, shadow mask, remaining, reset_us, remaining, reset_us, ...}

if mark then
  local verdict = tonumber(mark)
  local settled = not verdict
  if settled then verdict = tonumber(string.sub(mark, 2)) end
  if settled or not force or verdict % 64 == 0 then
    if_denied[1], if_denied[3] = verdict % 64, floor(verdict / 64)
    return if_denied
  end
end

if force then denied, mask = 0, 0 end
if paying then pay(id, denied > 0, if_allowed) end
if denied == 0 then
  for n = 1, #sets, 3 do
    call('SET', sets[n], sets[n + 1], 'PXAT', sets[n + 2])
  end
  for n = 1, #slots, 2 do
    call('ZREMRANGEBYSCORE', slots[n], '-inf', now)
    call('ZADD', slots[n], slots[n + 1], id)
    call('PEXPIREAT', slots[n], floor(slots[n + 1] / 1000) + 60000)
  end
end
call('HSET', KEYS[1], id, denied + 64 * mask)
call('PEXPIRE', KEYS[1], 180000)
local answer = denied == 0 and if_allowed or if_denied
answer[1], answer[3] = denied, mask
return answer
