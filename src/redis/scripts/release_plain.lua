-- The common cases, with fewer steps. The exclusive holder releases, and nothing is overdue.
if state and ARGV[3] == 'release' then
  local head, last, till, used, due, flags, id, number, turn =
    string.match(state, '^(.*;)(%d+) (%d+) (%d+) (%d+) (%d %d) (%x+) %d+ (%d+) (%d+) ')
  local plain = id == ARGV[4] and now < tonumber(due) and string.sub(head, -#ARGV[1] - 1) == ARGV[1] .. ';'
  local next = plain and redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if plain and not next and number == turn then
    -- No waiter.
    redis.call('SET', KEYS[6], turn .. ' idle')
    redis.call('SET', KEYS[1], string.format('%s%s %s 0 %s %s ', head, last, till, due, flags), 'EX', TTL)
    return 1
  end
  if next and flags == '0 0' and tonumber(last) < now and tonumber(till) <= now then
    local arrival, wish, cost, claim, inbox = string.match(redis.call('HGET', KEYS[5], next) or '', '^(%d+) 0 0 0 0 ((%d+) x %d %d+ (%d+) %d+ (%S+) .*)$')
    local deadline = redis.call('ZSCORE', KEYS[3], next)
    local now_text = string.format('%.0f', now)
    local listens = cost == used and deadline and string.byte(inbox) ~= 45
    local heard = listens and redis.pcall('PUBLISH', inbox, string.format('offer %s %s %s 0', next, now_text, now_text))
    if type(heard) == 'number' and heard > 0 then
      -- The next request is exclusive too, and its process listens.
      local expiry = math.min(now + claim, tonumber(deadline))
      if expiry < tonumber(due) then due = string.format('%.0f', expiry) end
      redis.call('ZREM', KEYS[2], next)
      if number ~= turn then
        redis.call('HDEL', KEYS[5], id)
        redis.call('ZREM', KEYS[3], id)
      end
      redis.call('SET', KEYS[6], now_text)
      redis.call('SET', KEYS[1], string.format('%s%s %s %s %s 0 0 %s %.0f %s %s %s 1 0 %s',
        head, now_text, till, used, due, next, expiry, arrival, now_text, now_text, wish), 'EX', TTL)
      return 1
    end
  end
end
