-- The everyday case first: one leaves who is alone, and nobody waits.
if state and ARGV[3] == 'release' and #ARGV == 4 then
  local head, last, till, due, flags, id, number, turn = string.match(state, '^(.*;)(%d+) (%d+) %d+ (%d+) (%d %d) (%x+) %d+ (%d+) (%d+) ')
  if id == ARGV[4] and number == turn and now < tonumber(due) and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('SET', KEYS[6], last .. ' idle')
    redis.call('SET', KEYS[1], string.format('%s%s %s 0 %s %s ', head, last, till, due, flags), 'EX', TTL)
    return 1
  end
end
