-- ARGV: 1 how many waiters to show
-- Replies {kind, limit, last token, microseconds until grants are made, holders, waiters, how many wait}; each of those {id, mode, cost, token, offered, pid, host, label, inbox, age, remaining}. Writes nothing.
local function shown(id, expiry)
  local rec = record(id)
  if not rec then return nil end
  local left = expiry and math.max(tonumber(expiry) - now, 0) or 0
  return {id, rec[MODE], rec[COST], int(rec[TOKEN]), rec[OFFERED], rec[PID], rec[HOST], rec[LABEL], rec[INBOX], math.max(now - rec[SINCE], 0), left}
end
local holders, waiters = {}, {}
local held = redis.call('ZRANGEBYSCORE', HOLD, '(' .. int(now), '+inf', 'WITHSCORES')
for i = 1, #held, 2 do holders[#holders + 1] = shown(held[i], held[i + 1]) end
for _, id in ipairs(redis.call('ZRANGE', QUEUE, 0, tonumber(ARGV[1]) - 1)) do
  local deadline = redis.call('ZSCORE', ALIVE, id)
  if deadline and tonumber(deadline) > now then waiters[#waiters + 1] = shown(id, deadline) end
end
return {kind or '', limit, redis.call('GET', FENCE) or '0', math.max(not_before - now, 0), holders, waiters, redis.call('ZCARD', QUEUE)}
