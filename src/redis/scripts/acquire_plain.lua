-- The common cases, with fewer steps. The request is exclusive, the state was written by a handle
-- like this one, and nothing is overdue.
local own = ARGV[3] .. ';' .. ARGV[1] .. ';'
if state and string.sub(state, 1, #own) == own then
  local last, till, used, due, crashed, drops, sole = string.match(state, '^(%d+) (%d+) (%d+) (%d+) (%d) (%d) (.*)$', #own + 1)
  local cost, mode, dropped, patience = string.match(ARGV[5], '^(%d+) (%a) (%d) (%d+)')
  local plain = mode == 'x' and dropped <= drops and tonumber(last) < now and tonumber(till) <= now and now < tonumber(due)
  local turn, id = string.format('%.0f', now), ARGV[4]
  if plain and used == '0' and (ARGV[8] or '0') == '0' and redis.call('EXISTS', KEYS[2]) == 0 then
    -- No holder and no waiter.
    local expiry = now + string.match(ARGV[3], '%d+$')
    if expiry < tonumber(due) then due = string.format('%.0f', expiry) end
    redis.call('SET', KEYS[6], turn)
    redis.call('SET', KEYS[1], string.format('%s%s %s %s %s 0 %s %s %.0f %s %s %s 0 %s %s',
      own, turn, till, cost, due, drops, id, expiry, turn, turn, turn, crashed, ARGV[5]), 'EX', TTL)
    return {1, now, tonumber(crashed), 0, now}
  end
  if plain and sole ~= '' and drops == '0' and not ARGV[6] and string.sub(sole, 1, #id) ~= id
    and redis.call('HSETNX', KEYS[5], id, turn .. ' 0 0 0 0 ' .. ARGV[5]) == 1 then
    -- There is one exclusive holder, and this request is new.
    local deadline = now + patience
    redis.call('ZADD', KEYS[2], turn, id)
    redis.call('ZADD', KEYS[3], deadline, id)
    local position = redis.call('ZRANK', KEYS[2], id)
    if position == 0 then
      for _, key in ipairs({2, 3, 5}) do redis.call('EXPIRE', KEYS[key], TTL) end
    end
    if deadline < tonumber(due) then due = string.format('%.0f', deadline) end
    redis.call('SET', KEYS[1], string.format('%s%s %s %s %s %s %s %s', own, turn, till, used, due, crashed, drops, sole), 'EX', TTL)
    return {2, position, string.match(sole, '^%x+ (%d+)') - now, 0, now, sole, 0}
  end
end
