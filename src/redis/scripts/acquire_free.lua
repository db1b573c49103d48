-- The everyday case first: nobody is inside, nobody waits, and the lock was left by a caller like this one, who wants all of it.
local own = ARGV[3] .. ';' .. ARGV[1] .. ';'
if state and string.sub(state, 1, #own) == own and redis.call('EXISTS', KEYS[2]) == 0 then
  local last, till, used, due, crashed, drops = string.match(state, '^(%d+) (%d+) (%d+) (%d+) (%d) (%d) ', #own + 1)
  local cost, mode, dropped = string.match(ARGV[5], '^(%d+) (%a) (%d)')
  if used == '0' and mode == 'x' and dropped <= drops and tonumber(last) < now and tonumber(till) <= now and now < tonumber(due) and not ARGV[8] then
    local turn, expiry = string.format('%.0f', now), now + string.match(ARGV[3], '%d+$')
    if expiry < tonumber(due) then due = string.format('%.0f', expiry) end
    redis.call('SET', KEYS[6], turn)
    redis.call('SET', KEYS[1], string.format('%s%s %s %s %s 0 %s %s %.0f %s %s %s 0 %s %s',
      own, turn, till, cost, due, drops, ARGV[4], expiry, turn, turn, turn, crashed, ARGV[5]), 'EX', TTL)
    return {1, now, tonumber(crashed), 0}
  end
end
