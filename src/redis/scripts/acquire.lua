-- ARGV: 1 protocol, 2 kind, 3 limit, 4 lease, 5 quarantine, 6 id, 7 cost, 8 mode, 9 patience, 10 claim window, 11 lock delay, 12 inbox, 13 drops, 14 pid, 15 host, 16 label, 17 most waiting or -1, 18 only try, 19 token to re-assert or 0
-- Replies {1, token, crashed, blind} granted · {2, place, wake, blind} queued · {3} refused · {4, length} too many wait · {5, what, theirs, ours} another lock · {6} somebody else was let in
local function differs(what, theirs, ours)
  if theirs and theirs ~= ours then return {5, what, theirs, ours} end
end

local empty = used == 0 and redis.call('EXISTS', QUEUE) == 0
local other = differs('protocol version', known, ARGV[1]) or differs('kind', kind, ARGV[2]) or differs('limit', state[3], ARGV[3])
if not other and not empty then other = differs('lease', state[4], ARGV[4]) end
if other then return other end

kind, limit, lease, quarantine, me = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
if run == '' then run = false end
if not known and redis.call('EXISTS', WHO) == 1 then recount() end
if ARGV[13] == '1' and drops == 0 then drops, anew = 1, true end
anew = anew or state[4] ~= ARGV[4]

local rec, token = record(me), tonumber(ARGV[19])
if rec and rec[TOKEN] > 0 then
  -- A repetition of a request that was heard, or a claim.
  rec[OFFERED], changed = 0, true
  redis.call('ZADD', HOLD, int(now + lease), me)
  redis.call('ZREM', ALIVE, me)
  keep(me, rec)
  save()
  return {1, rec[TOKEN], rec[CRASHED], blind}
end

reap()
rec = record(me)
local new = not rec
if new then
  number = math.max(number + 1, now)
  rec = {tonumber(ARGV[7]), ARGV[8], lease, tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13]),
    ARGV[14], ARGV[15], ARGV[16], number, now, 0, 0, 0}
end
if rec[COST] > limit then return differs('limit', int(limit), int(rec[COST])) end

if token > 0 then
  -- A holder whose hold is not on record any more. Its token says whether anybody was let in since.
  local last = tonumber(redis.call('GET', FENCE) or 0)
  if redis.call('ZSCORE', HOLD, me) then used = used - rec[COST] end
  local free = used + rec[COST] <= limit and (rec[MODE] == 'p' or last <= token)
  if not free then
    save()
    return {6}
  end
  redis.call('SET', FENCE, int(math.max(last, token)))
  rec[TOKEN], used, changed = token, used + rec[COST], true
  redis.call('ZADD', HOLD, int(now + lease), me)
  keep(me, rec)
  redis.call('EXPIRE', HOLD, TTL)
  redis.call('EXPIRE', WHO, TTL)
  open()
  save()
  return {1, token, 0, blind}
end

grant()
if drop_the_cut_off() then grant() end
local waiting = redis.call('ZCARD', QUEUE)
if new or not redis.call('ZSCORE', QUEUE, me) then
  if waiting == 0 and used + rec[COST] <= limit and open() then
    let_in(me, rec)
    save()
    return {1, rec[TOKEN], rec[CRASHED], blind}
  end
  if ARGV[18] == '1' then
    save()
    return {3}
  end
  if tonumber(ARGV[17]) >= 0 and waiting >= tonumber(ARGV[17]) then
    save()
    return {4, waiting}
  end
  redis.call('ZADD', QUEUE, int(rec[NUMBER]), me)
  keep(me, rec)
  changed = true
end
redis.call('ZADD', ALIVE, int(now + rec[PATIENCE]), me)
if waiting == 0 then
  for _, key in ipairs({QUEUE, ALIVE, WHO}) do redis.call('EXPIRE', key, TTL) end
end
grant()
rec = record(me)
save()
if rec[TOKEN] > 0 then return {1, rec[TOKEN], rec[CRASHED], blind} end
return {2, redis.call('ZRANK', QUEUE, me), wake(), blind}
