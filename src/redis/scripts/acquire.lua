-- ARGV:
--   3 identity of the lock: '<protocol> <kind> <limit> <lease>',
--   4 id,
--   5 wish: 'cost mode drops patience claim-window delay inbox pid host label',
--   6 (optional) the most waiters there may be for a new id, or -1,
--   7 (optional) 1 to try only,
--   8 (optional) the token of a hold to assert, or 0,
--   9 (optional) the turn that the waiter gave back last. The server may not have received that
--   yet.
-- Replies one of:
--   {1, token, crashed, blind, turn}: granted
--   {2, position, wake, blind, now, holder, blocked}: queued
--   {3}: refused
--   {4, length}: too many waiters
--   {5, what, theirs, ours}: another lock
--   {6}: another caller acquired the lock since
local me, token = ARGV[4], tonumber(ARGV[8] or 0)
local _, kind, limit, lease = string.match(ARGV[3], '^(%d+) (%a+) (%d+) (%d+)$')
local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if state then
  if S.kind ~= kind then return {5, 'kind', S.kind, kind} end
  if S.limit ~= tonumber(limit) then return {5, 'limit', tostring(S.limit), limit} end
  if S.lease ~= tonumber(lease) and (S.used > 0 or first) then
    -- It may only be in use by callers that died.
    check_server()
    reap()
    grant()
    first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if S.used > 0 or first then
      save()
      return {5, 'lease', tostring(S.lease), lease}
    end
  end
end
S.identity, S.limit, S.lease = ARGV[3], tonumber(limit), tonumber(lease)
if not state then
  -- Earlier holders get one lease to assert their holds.
  if is_torn then S['until'], S.changed = now + S.lease, true end
  if redis.call('EXISTS', KEYS[5]) == 1 then recount() end
end

check_server()
local r = find(me)
if r and r.turn > 0 and r.turn == tonumber(ARGV[9]) then
  keep_waiting(r)
  take_back(r)
  r = find(me)
end
if not (r and r.turn > 0) and reap() then r = find(me) end
-- A writer that becomes a reader asserts its hold with the wish of a reader.
local shares = r and r.mode == 'x' and string.find(ARGV[5], '^1 s ')
if shares then
  if r.turn > 0 then
    end_hold(r)
    S.used = S.used + 1
  end
  r.cost, r.mode = 1, 's'
end
if r and r.turn > 0 then
  -- A repeated request, a claim, or a downgrade.
  r.offered = 0
  hold(r, now + S.lease)
  if shares then grant() end
  save()
  return {1, tonumber(r.token), tonumber(r.crashed), S.blind, r.turn}
end

local new = not r
if new then
  r = read(me, string.format('%.0f 0 0 0 0 %s', math.max(S.last + 1, now), ARGV[5]))
  if r.drops == '1' then S.drops = true end
end
if r.cost > S.limit then return {5, 'limit', limit, tostring(r.cost)} end

if token > 0 then
  -- The hold of this caller is no longer on record. Its token shows whether the lock was granted
  -- since.
  local last = tonumber(string.match(redis.call('GET', KEYS[6]) or '', '^%d+')) or 0
  if redis.call('ZSCORE', KEYS[4], me) then S.used = S.used - r.cost end
  if S.used + r.cost > S.limit or r.mode ~= 'p' and last > token then
    save()
    return {6}
  end
  redis.call('SET', KEYS[6], math.max(last, token))
  S.last = math.max(S.last, token)
  r.turn, r.token, S.used = token, token, S.used + r.cost
  redis.call('ZREM', KEYS[2], me)
  hold(r, now + S.lease)
  save()
  return {1, token, 0, S.blind, token}
end

expire_disconnected()
if first then
  grant(me)
  first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not new then r = find(me) end
end
if r.turn == 0 and (new or not redis.call('ZSCORE', KEYS[2], me)) then
  if not first and S.used + r.cost <= S.limit and now >= S['until'] then
    give(r, me)
  elseif ARGV[7] == '1' then
    save()
    return {3}
  elseif new and ARGV[6] and ARGV[6] ~= '-1' and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then
    save()
    return {4, redis.call('ZCARD', KEYS[2])}
  else
    redis.call('ZADD', KEYS[2], r.number, me)
    redis.call('HSET', KEYS[5], me, write(r))
    S.last, S.changed = math.max(S.last, tonumber(r.number)), true
    if not new then
      -- The waiter was bypassed. It is queued again with its old number, and may be first.
      grant(me)
      r = find(me)
    end
  end
end
if r.turn > 0 then
  save()
  return {1, tonumber(r.token), tonumber(r.crashed), S.blind, r.turn}
end
keep_waiting(r)
if not first then
  for _, key in ipairs({2, 3, 5}) do redis.call('EXPIRE', KEYS[key], TTL) end
end
save()
return {2, redis.call('ZRANK', KEYS[2], me), wake(), S.blind, now, shown(), blocked_for()}
